"""Verification of signatures, of several messages together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mta.authentication.dkim import DKIMResult, Verification

MAX_BATCH = 8  # messages with a signature each: about half a millisecond, then others work
MAX_SECONDS = 0.001  # of a batch, but for its last message: long keys take ten times as long
MAX_SIGNATURES = 2  # of one message that are verified between other work; more go to a thread

Results = Sequence[DKIMResult]


class Verifications:
    """Verifies the signatures of messages whose content is complete.

    To verify one lets other threads run.  So it is done for all messages that have come, before any
    of them goes on: else the thread that commits would take each by itself, and sync as often.
    """

    def __init__(self, clock: IReactorTime, in_thread: Callable[..., Deferred[Any]]) -> None:
        self._clock = clock
        self._in_thread = in_thread
        self._waiting: deque[tuple[Verification, Deferred[Results]]] = deque()

    async def check(self, verification: Verification) -> Results:
        """Return the results of a message."""
        if not verification.count:
            return verification.check()
        if verification.count > MAX_SIGNATURES:
            found: Results = await self._in_thread(verification.check)
            return found
        if not self._waiting:
            self._clock.callLater(0, self._check_some)
        checked: Deferred[Results] = Deferred()
        self._waiting.append((verification, checked))
        return await checked

    def _check_some(self) -> None:
        """Verify what waits, and then let these messages go on."""
        until = self._clock.seconds() + MAX_SECONDS
        done: list[tuple[Results | Failure, Deferred[Results]]] = []
        while self._waiting and len(done) < MAX_BATCH and self._clock.seconds() < until:
            verification, checked = self._waiting.popleft()
            done.append((_checked(verification), checked))
        if self._waiting:
            self._clock.callLater(0, self._check_some)
        for results, checked in done:
            if not checked.called:  # it may have been cancelled
                checked.callback(results)


def _checked(verification: Verification) -> Results | Failure:
    """The results, or the failure of this message alone."""
    try:
        return verification.check()
    except Exception:  # noqa: BLE001 - of one message among others
        return Failure()
