"""Sender authentication: SPF, DKIM and DMARC, and their results in a field.

All of it is pure: the resolver is an argument, and nothing here waits for anything else.
"""
