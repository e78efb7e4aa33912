"""Clients that want to wear the server out, and ordinary mail beside them."""
