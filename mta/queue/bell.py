"""Waiting for something to happen, or for time to pass, whichever comes first."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class Bell:
    """Wakes the one coroutine that waits for it; a ring that nobody heard is remembered."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: Deferred[None] | None = None
        self._rung = False

    def ring(self) -> None:
        """End the wait that is under way, or else the next one."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self._rung = True
        else:
            waiting.callback(None)

    async def wait(self, longest: float) -> None:
        """Return when the bell rings, at the latest after `longest` seconds.

        May be cancelled; a ring is then kept for the next wait.
        """
        if self._rung:
            self._rung = False
            return
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        timer = self._clock.callLater(max(longest, 0.0), self.ring)
        try:
            await waiting
        finally:
            if timer.active():
                timer.cancel()
            if self._waiting is waiting:
                self._waiting = None
