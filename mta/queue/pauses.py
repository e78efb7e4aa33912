"""Pauses that end at once when the runner stops."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from mta.queue.bell import Bell


class Pauses:
    """The pauses of one runner."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._bells: set[Bell] = set()
        self.stopped = False

    def stop(self) -> None:
        """End those under way; there are no more."""
        self.stopped = True
        for bell in self._bells:
            bell.ring()

    async def wait(self, seconds: float) -> None:
        """Let time pass, less of it when we stop."""
        if self.stopped:
            return
        bell = Bell(self._clock)
        self._bells.add(bell)
        try:
            await bell.wait(seconds)
        finally:
            self._bells.discard(bell)
