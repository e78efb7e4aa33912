"""Look-ups for one message, begun early and waited for at its end."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure


class LookUps:
    """Coroutines that run while content comes.

    Each leaves its result where it belongs; one that failed or was cancelled leaves none.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._open: list[Deferred[None]] = []

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin with one more."""
        try:
            work.send(None)
        except StopIteration:
            return  # as where the resolver remembers all answers: that is to cost no Deferred
        except Exception:  # noqa: BLE001 - a fault of ours
            self._failed(Failure())
            return
        begun = Deferred.fromCoroutine(work)  # which asks what it awaits once more
        begun.addErrback(self._failed)
        self._open.append(begun)

    async def finish(self, until: float) -> None:
        """Wait until all are done, or are cancelled at the time `until`."""
        waiting = [each for each in self._open if not each.called]
        if waiting:
            left = max(0.0, until - self._clock.seconds())
            timer = self._clock.callLater(left, self.cancel)
            await DeferredList(waiting)
            if timer.active():
                timer.cancel()
        self._open.clear()

    def cancel(self) -> None:
        """End those that are not done."""
        for each in self._open:
            each.cancel()

    def _failed(self, failure: Failure) -> None:
        """Leave it as unknown: a fault of ours must not refuse mail."""
        if not failure.check(CancelledError):
            self.log.failure("a look-up for a message failed", failure)
