"""Long work, done in short steps with other work in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

InSteps = Callable[[Iterator[None]], Awaitable[object]]


async def at_once(steps: Iterator[None]) -> None:
    """Do all steps of some work, one after the other."""
    for _ in steps:
        pass
