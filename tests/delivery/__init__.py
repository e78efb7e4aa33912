"""The delivery agents."""
