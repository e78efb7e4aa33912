"""Tests of pairing: tokens, the file of pairings, and XPAIR between both sides in memory."""
