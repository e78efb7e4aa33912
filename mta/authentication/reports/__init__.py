"""Aggregate reports of DMARC (RFC 9990).

`rows` are the findings about like messages, `document` is their XML, `message` the mail that brings
it, and `destinations` are the addresses that may be sent it.
"""
