"""The store of accepted mail: a database, and files for large content.

``docs/spool.rst`` has the invariants: which states exist, what a crash between any two steps
leaves, and who repairs it.  `SqliteSpool` is the spool of a running process, `SpoolTools` the
same spool as the command line uses it.
"""
