"""Octets as they come from a network: in pieces."""

from __future__ import annotations

from collections.abc import Iterator

MAX_PIECES = 200  # of one input: those that are short come octet by octet


def pieces(octets: bytes) -> Iterator[bytes]:
    """The octets in short pieces."""
    size = 1 + len(octets) // MAX_PIECES
    return (octets[start : start + size] for start in range(0, len(octets), size))
