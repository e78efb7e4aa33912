"""Pairing: two hosts get to know each other by one line.

The relay opens a pairing (`pairings`) and prints its `token`.  The office proves the secret in it
by XPAIR, and hears its password (`redemption` on the relay, `request` in the office).  `entries`
are what both then have in their configuration, `trial` is the first message.
"""
