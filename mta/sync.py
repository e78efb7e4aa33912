"""Coroutines in programs without a reactor: what they return, at once.

The tools of the command line use the same coroutines as the server, on channels and files that
block: nothing that they await is ever left open.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def result_of(coroutine: Coroutine[Deferred[Any], Any, T]) -> T:
    """Return the result of a coroutine that waits for nothing.  What it raises is raised."""
    results: list[T | Failure] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result
