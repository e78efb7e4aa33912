"""The counts of what peers do.

They are in memory until they join those in the spool.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import IPeerMeter
from mta.peers.status_log import PeerStatusLog

DELAY = 1.0  # seconds from the first count to when all are written


@implementer(IPeerMeter)
class PeerCounts:
    """Gathers counts, and adds them to the status of peers later."""

    log = Logger()

    def __init__(self, status: PeerStatusLog, clock: IReactorTime) -> None:
        self._status = status
        self._clock = clock
        self._counts: dict[str, Counter[str]] = {}
        self._due: IDelayedCall | None = None

    def answered(self, peer: str, source: str) -> None:
        """See `IPeerMeter.answered`."""
        self._count(peer, f"answered_by_{source}")

    def passed_through(self, peer: str) -> None:
        """See `IPeerMeter.passed_through`."""
        self._count(peer, "passed_through")

    def refused(self, peer: str) -> None:
        """See `IPeerMeter.refused`."""
        self._count(peer, "refused")

    def sealed(self, peer: str) -> None:
        """See `IPeerMeter.sealed`."""
        self._count(peer, "sealed")

    async def flush(self) -> None:
        """Return when all is written."""
        if self._due is not None:
            self._due.cancel()
            self._write()
        await self._status.flush()

    def _count(self, peer: str, name: str) -> None:
        self._counts.setdefault(peer, Counter())[name] += 1
        if self._due is None:
            self._due = self._clock.callLater(DELAY, self._write)

    def _write(self) -> None:
        counts, self._counts, self._due = self._counts, {}, None
        self._status.add(counts).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        failure.trap(OSError)
        self.log.warn("the counts of peers: {error}", error=failure.getErrorMessage())
