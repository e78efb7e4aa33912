"""The check of the configuration, and of all that the server opens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mta.config import Problem
from mta.doctor.result import Result, bad, ok, warn


def results_of(errors: Sequence[Problem], warnings: Sequence[Problem]) -> Iterator[Result]:
    """Say in the words of a check what ``mta check`` found."""
    for problem in errors:
        yield bad(str(problem), "mta check says the same until it is mended")
    for problem in warnings:
        yield warn(str(problem))
    if not errors and not warnings:
        yield ok("the server starts with it, and can open all that it names")
