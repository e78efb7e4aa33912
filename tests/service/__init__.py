"""The service and its processes."""
