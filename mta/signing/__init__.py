"""The signing of mail that leaves (DKIM, RFC 6376), and its keys.

`keys` reads the private keys of our domains, `key_files` their dates; `making` makes new ones,
`rotation` has the steps from old to new.  `records` are what the DNS is to have,
`publication` looks whether it does, and `presence` compares.

The `signer` signs a message; `origins` tells which are ours to sign, and `key_ring` has the keys.
"""
