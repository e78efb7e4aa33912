"""The spool in a PostgreSQL database, which several hosts share.

``docs/spool.rst`` has what is always true.  `PostgresSpool` is the spool of a running process,
`PostgresTools` the same spool as the command line uses it.
"""
