"""The access policy."""
