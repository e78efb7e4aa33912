"""Octets that a fuzzer makes, into everything that reads what strangers and files say."""
