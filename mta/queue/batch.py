"""Things that are done together with the others of the same turn of the reactor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T")


class Batch(Generic[T]):
    """Gathers items, and calls `act` with all of them at the end of the turn."""

    def __init__(self, clock: IReactorTime, act: Callable[[Sequence[T]], None]) -> None:
        self._clock = clock
        self._act = act
        self._items: list[T] = []
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T) -> None:
        """Let an item wait for the others."""
        self._items.append(item)
        if self._timer is None:
            self._timer = self._clock.callLater(0, self.flush)

    def flush(self, *more: T) -> None:
        """Act now, on what was gathered and on `more`, where there is anything."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        items, self._items = [*self._items, *more], []
        if items:
            self._act(items)
