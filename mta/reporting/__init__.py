"""Aggregate reports of DMARC, collected for a day and sent (RFC 9990).

`collector` counts what inspectors judge, `store` keeps the counts of all processes, and `sender`
writes the messages, which `mta.authentication.reports` has the form of.
"""
