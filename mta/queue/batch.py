"""Items of one iteration of the reactor, worked on together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T")


class Batch(Generic[T]):
    """Gathers items, and acts on all of them at the iteration's end."""

    def __init__(self, clock: IReactorTime, action: Callable[[Sequence[T]], object]) -> None:
        self._clock = clock
        self._action = action
        self._items: list[T] = []
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T) -> None:
        """Let an item wait for the others."""
        self._items.append(item)
        if self._timer is None:
            self._timer = self._clock.callLater(0, self.flush)

    def take(self) -> Sequence[T]:
        """Take what was gathered, and do not act on it."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        items, self._items = self._items, []
        return items

    def flush(self) -> None:
        """Act now on what was gathered, where there is anything."""
        if items := self.take():
            self._action(items)
