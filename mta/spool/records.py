"""What became of the exchanges with each peer: small files in the spool, for people to look at.

Losing one loses no mail, so they are replaced whole and never synced.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mta.files import atomic_write
from mta.spool.folder import create, give_to_owner_of

FOLDER = "peers"


@dataclass(frozen=True, slots=True)
class Record:
    """The last exchange with a peer; its time in seconds since the epoch, None: never.

    `sent` and `received` count its messages; `last_error` is empty where it went well.
    """

    last_exchange: float | None = None
    last_error: str = ""
    sent: int = 0
    received: int = 0


class Records:
    """The records in a spool folder.  All methods block."""

    def __init__(self, spool: Path) -> None:
        self._folder = spool / FOLDER

    def read(self, peer: str) -> Record:
        """The record of a peer, an empty one where there is none.  Raises OSError."""
        try:
            return Record(**json.loads(self._path(peer).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return Record()

    def link_since(self, peer: str) -> float | None:
        """Since when a turned connection stands, in seconds since the epoch.  Raises OSError."""
        try:
            descriptor = os.open(self._mark(peer), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
        return None

    def update(self, peer: str, **changes: Any) -> None:
        """Replace some values of a record.  Raises OSError."""
        self._make_folder()
        path = self._path(peer)
        record = replace(self.read(peer), **changes)
        atomic_write(path, json.dumps(asdict(record)).encode(), durable=False)

    def mark_link(self, peer: str) -> int:
        """Say that a turned connection stands, for as long as the descriptor returned is open.

        That ends with the process at the latest, however it ends.  Raises OSError.
        """
        self._make_folder()
        descriptor = create(self._mark(peer), os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(descriptor)
        return descriptor

    def _make_folder(self) -> None:
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            give_to_owner_of(self._folder.parent, self._folder)

    def _path(self, peer: str) -> Path:
        return self._folder / f"{peer}.json"

    def _mark(self, peer: str) -> Path:
        return self._folder / f"{peer}.link"


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
        """Say that a turned connection stands while this lasts."""
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
