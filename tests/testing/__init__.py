"""The stand-ins for tests."""
