"""Octets in pieces, and coroutines that wait for nothing."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
MAX_PIECES = 200  # of one input: those that are short come octet by octet


def pieces(octets: bytes) -> Iterator[bytes]:
    """The octets in short pieces."""
    size = 1 + len(octets) // MAX_PIECES
    return (octets[start : start + size] for start in range(0, len(octets), size))


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has all it needs."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits")
