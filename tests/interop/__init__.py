"""Tests against programs that others wrote, over real sockets."""
