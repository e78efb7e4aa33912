"""The coroutines that the runner has under way, beside its deliveries."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mta.queue.event import Event


class Tasks:
    """Runs coroutines to their end.

    It is the outermost place for bugs of ours: they are logged, and the mail that they concern
    stays leased, and in the spool.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._running: set[Deferred[None]] = set()
        self._ended = Event(clock)

    def __len__(self) -> int:
        return len(self._running)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Run a coroutine.  The result fires when it is over, and never fails."""
        running = Deferred.fromCoroutine(coroutine)
        self._running.add(running)
        running.addErrback(self._failed)
        running.addBoth(self._over, running)
        return running

    async def finish(self, timeout: float) -> None:
        """Return when nothing is under way, at the latest after `timeout` seconds."""
        end = self._clock.seconds() + timeout
        while self._running and (left := end - self._clock.seconds()) > 0:
            await self._ended.wait(left)

    def _failed(self, failure: Failure) -> None:
        self.log.failure("the runner failed", failure)

    def _over(self, _: object, running: Deferred[None]) -> None:
        self._running.discard(running)
        if not self._running:
            self._ended.set()
