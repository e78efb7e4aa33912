"""Inspectors that use the DNS and threads to look at mail."""
