"""Pauses that end at once when the runner stops."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from mta.queue.event import Event


class Pauses:
    """The pauses of one runner."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._ends: set[Event] = set()
        self.stopped = False

    def stop(self) -> None:
        """End those under way; there are no more."""
        self.stopped = True
        for end in [*self._ends]:  # each leaves the set as it ends
            end.set()

    async def wait(self, seconds: float) -> None:
        """Let time pass, less of it when we stop."""
        if self.stopped:
            return
        end = Event(self._clock)
        self._ends.add(end)
        try:
            await end.wait(seconds)
        finally:
            self._ends.discard(end)
