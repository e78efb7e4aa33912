"""Tasks that are done every so many seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger


class Periodic(TimerService):
    """Does something at once, and then every so many seconds.

    An exception is logged; with Twisted's own service it would be the last time.
    """

    log = Logger()

    def __init__(
        self, seconds: float, action: Callable[[], Awaitable[None]], clock: IReactorTime
    ) -> None:
        super().__init__(seconds, self._start)
        self.clock: Any = clock
        self._action = action

    def _start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        try:
            await self._action()
        except Exception:  # noqa: BLE001 - outermost of the loop, which must not end
            self.log.failure("{what} failed", what=self._action.__qualname__)
