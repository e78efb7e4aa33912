"""A mail transfer agent on Twisted whose connections carry mail both ways."""

__version__ = "0.1.0"
