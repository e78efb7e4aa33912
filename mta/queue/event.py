"""An event that a coroutine can wait for, with a time-out."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class Event:
    """Wakes the one coroutine that waits for it.

    An event that comes while none waits is remembered, and ends the next wait.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: Deferred[None] | None = None
        self._is_set = False

    def set(self) -> None:
        """End the wait that is under way, or else the next one."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self._is_set = True
        else:
            waiting.callback(None)

    async def wait(self, timeout: float) -> None:
        """Return when the event comes, at the latest after `timeout` seconds.

        May be cancelled; an event is then kept for the next wait.
        """
        if self._is_set:
            self._is_set = False
            return
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        timer = self._clock.callLater(max(timeout, 0.0), self.set)
        try:
            await waiting
        finally:
            if timer.active():
                timer.cancel()
            if self._waiting is waiting:
                self._waiting = None
