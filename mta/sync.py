"""Coroutines in programs without a reactor: what they return, at once.

The tools of the command line use the same coroutines as the server, on channels and files that
block: nothing that they await is ever left open.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def result_of(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that waits for nothing.  What it raises is raised."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("it waits")
