"""The records of the peers, as a running process keeps them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mta.peers.records import Records


class Ledger:
    """The records as a running process keeps them: in a thread, one change after the other.

    What can't be written is logged, and hinders nobody.
    """

    log = Logger()

    def __init__(self, records: Records, reactor: Any, threads: ThreadPool) -> None:
        self._records = records
        self._reactor = reactor
        self._threads = threads
        self._lock = DeferredLock()

    def note(self, peer: str, **changes: Any) -> None:
        """Change values of a peer's record, see `Record`."""
        self._lock.run(self._update, peer, changes).addErrback(self._failed, peer)

    @contextmanager
    def link(self, peer: str) -> Iterator[None]:
        """Say that a turned connection stands while this lasts, and that all is well."""
        self.note(peer, last_error="")
        try:
            descriptor = self._records.mark_link(peer)
        except OSError as error:
            self.log.warn("the record of {peer}: {error}", peer=peer, error=str(error))
            yield
            return
        try:
            yield
        finally:
            os.close(descriptor)

    async def flush(self) -> None:
        """Return when all changes are written."""
        await self._lock.run(lambda: None)

    def _update(self, peer: str, changes: Mapping[str, Any]) -> Deferred[None]:
        return deferToThreadPool(self._reactor, self._threads, self._write, peer, changes)

    def _write(self, peer: str, changes: Mapping[str, Any]) -> None:
        self._records.update(peer, **changes)

    def _failed(self, failure: Failure, peer: str) -> None:
        failure.trap(OSError)
        self.log.warn("the record of {peer}: {error}", peer=peer, error=failure.getErrorMessage())
