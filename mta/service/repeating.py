"""What is done every so many seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger


class Repeating(Service):
    """Does something again and again, the first time after `seconds`.

    What it raises is logged, and not the end: `TimerService` would go silent for ever.
    """

    log = Logger()

    def __init__(
        self, seconds: float, action: Callable[[], Awaitable[None]], clock: IReactorTime
    ) -> None:
        self._seconds = seconds
        self._action = action
        self._loop = LoopingCall(lambda: ensureDeferred(self._once()))
        self._loop.clock = clock
        self._ended: Deferred[LoopingCall] | None = None

    def startService(self) -> None:
        """Twisted calls this with the service above it."""
        super().startService()
        self._ended = self._loop.start(self._seconds, now=False)

    def stopService(self) -> Deferred[LoopingCall] | None:
        """Twisted calls this with the service above it; fires when what is under way is over."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return self._ended

    async def _once(self) -> None:
        try:
            await self._action()
        except Exception:  # noqa: BLE001 - outermost of the loop, which must not end
            self.log.failure("{what} failed", what=self._action.__qualname__)
