"""The status of the peers, as a running process writes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mta.peers.status_files import EndedExchange, PeerStatusFiles
from mta.session import LinkKind


class PeerStatusLog:
    """Writes changes of status in a thread, one after the other.

    What can't be written is logged, and hinders no exchange.
    """

    log = Logger()

    def __init__(self, files: PeerStatusFiles, reactor: Any, threads: ThreadPool) -> None:
        self._files = files
        self._reactor = reactor
        self._threads = threads
        self._lock = DeferredLock()

    def note(self, peer: str, **changes: Any) -> None:
        """Change values of a peer's `PeerStatus`."""
        self._write(self._files.update, peer, **changes).addErrback(self._failed, peer)

    def ended(self, peer: str, exchange: EndedExchange) -> None:
        """Keep an exchange that the peer took part in."""
        counts = {"sent": exchange.sent, "received": exchange.received}
        changes = {"last_exchange": exchange.ended, **counts}
        self._keep(peer, exchange, **changes)

    def failed(self, peer: str, exchange: EndedExchange) -> None:
        """Keep an exchange that came to nothing."""
        self._keep(peer, exchange)

    def add(self, counts: Mapping[str, Mapping[str, int]]) -> Deferred[None]:
        """Add to the counts of peers, by their names; fails with OSError."""
        return self._write(self._files.count, counts)

    @contextmanager
    def link(self, peer: str, kind: LinkKind = LinkKind.MAIN) -> Iterator[None]:
        """Mark that a link of a kind stands while this lasts."""
        if kind is LinkKind.MAIN:
            self.note(peer, last_error="", obstacle="")
        try:
            descriptor = self._files.mark_link(peer, kind)
        except OSError as error:
            self.log.warn("the status of {peer}: {error}", peer=peer, error=str(error))
            yield
            return
        try:
            yield
        finally:
            os.close(descriptor)

    async def flush(self) -> None:
        """Return when all changes are written."""
        await self._lock.run(lambda: None)

    def _keep(self, peer: str, exchange: EndedExchange, **changes: Any) -> None:
        writing = self._write(self._files.end_exchange, peer, exchange, **changes)
        writing.addErrback(self._failed, peer)

    def _write(self, write: Callable[..., None], *values: Any, **changes: Any) -> Deferred[None]:
        in_thread: Any = deferToThreadPool
        return self._lock.run(in_thread, self._reactor, self._threads, write, *values, **changes)

    def _failed(self, failure: Failure, peer: str) -> None:
        failure.trap(OSError)
        self.log.warn("the status of {peer}: {error}", peer=peer, error=failure.getErrorMessage())
