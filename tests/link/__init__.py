"""The driver of a connection."""
