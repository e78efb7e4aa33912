"""The signing of mail that leaves (DKIM, RFC 6376), and its keys.

`keys` reads the private keys of our domains.
"""
