"""Sealed mail: held for a peer, and readable to that peer alone.

A relay seals what waits for a peer to the public key of that peer, as files in the age format,
version 1 (https://age-encryption.org/v1).  The key to open them lies with the peer.
"""
