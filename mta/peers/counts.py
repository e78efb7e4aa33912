"""The counts of what peers do.

They are in memory until they join those in the spool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mta.interfaces import IPeerMeter
from mta.peers.status_files import PeerStatusFiles

DELAY = 1.0  # seconds from the first count to when all are written


@implementer(IPeerMeter)
class PeerCounts:
    """Counts in this process, and adds to the files by and by."""

    log = Logger()

    def __init__(self, files: PeerStatusFiles, reactor: Any, threads: ThreadPool) -> None:
        self._files = files
        self._reactor = reactor
        self._threads = threads
        self._lock = DeferredLock()
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
        await self._lock.run(lambda: None)

    def _count(self, peer: str, name: str) -> None:
        self._counts.setdefault(peer, Counter())[name] += 1
        if self._due is None:
            self._due = self._reactor.callLater(DELAY, self._write)

    def _write(self) -> None:
        counts, self._counts, self._due = self._counts, {}, None
        self._lock.run(self._add, counts).addErrback(self._failed)

    def _add(self, counts: Mapping[str, Mapping[str, int]]) -> Deferred[None]:
        return deferToThreadPool(self._reactor, self._threads, self._files.count, counts)

    def _failed(self, failure: Failure) -> None:
        failure.trap(OSError)
        self.log.warn("the counts of peers: {error}", error=failure.getErrorMessage())
