"""Group commit: one transaction, and one sync, for all that waits.

A thread of its own owns the connection that writes.  All jobs that came while the last commit
was under way go into the next one, and the reactor hears once of the whole batch.  A new message
waits for a moment where others are about to come, and removals wait for a commit that somebody
needs: under load, one commit serves many, and that is what its cost is made of.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mta.interfaces import Settlement
from mta.spool import rows
from mta.spool.database import (
    is_full,
    open_database,
    primary_code,
    spare,
    transaction,
    translated,
)
from mta.spool.folder import Folder, create

COMPANY = 0.001  # seconds that a new message waits for others to share its commit with
_BATCH = 500  # jobs in one transaction: bounds what a rollback throws away


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Work that must happen in one transaction, or not at all.

    `action` gets the connection; what it returns is the result of the job.
    """

    arrivals: Sequence[rows.Arrival] = ()
    updates: Sequence[Settlement] = ()
    removals: Sequence[int] = ()
    action: Callable[[sqlite3.Connection], Any] | None = None

    @property
    def is_intake(self) -> bool:
        """Whether it only makes the queue longer."""
        return bool(self.arrivals) and not (self.updates or self.removals)


_Waiting = tuple[Job, "Deferred[Any]"]
_Result = tuple["Deferred[Any]", Any]


class Committer:
    """Commits the jobs of one owner, in batches, away from the reactor."""

    log: ClassVar[Logger] = Logger()

    def __init__(self, folder: Folder, reactor: Any) -> None:
        """Open the database.  Raises SpoolDamaged or OSError.

        `reactor`: IReactorFromThreads and IReactorTime.  `on_commit` is called in the thread with
        the number of jobs in each commit, and the seconds that it took.
        """
        self._folder = folder
        self._reactor = reactor
        self._connection = open_database(folder)
        self._turn = create(folder.turn, os.O_RDWR)
        self._jobs: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._gathered: list[_Waiting] = []  # jobs that wait for company
        self._removals: list[int] = []  # the same, of messages
        self._removed: list[Deferred[Any]] = []  # who is to hear of that
        self._timer: IDelayedCall | None = None
        self._thread = threading.Thread(target=self._run, name="spool committer", daemon=True)
        self._stopped: Deferred[None] = Deferred()
        self._owner = 0
        self.on_commit: Callable[[int, float], None] = lambda jobs, seconds: None

    def start(self, owner: int) -> None:
        """Begin to commit for an owner."""
        self._owner = owner
        self._thread.start()

    def submit(self, job: Job) -> Deferred[Any]:
        """Do a job; fires with its result when it is on stable storage.

        Fails with SpoolFull or OSError; then nothing of the job was done.
        """
        done = self._gather(job)
        self._hand_over()
        return done

    def submit_in_company(self, job: Job, expected: int) -> Deferred[Any]:
        """As `submit`, where so many others are expected to come any moment."""
        if not expected:
            return self.submit(job)
        done = self._gather(job)
        self._hand_over_in(COMPANY)
        return done

    async def remove(self, numbers: Collection[int], patience: float) -> None:
        """Remove messages, in a commit that begins in so many seconds at the latest.

        Raises SpoolFull or OSError; then none of them was removed.
        """
        self._removals += numbers
        removed: Deferred[Any] = Deferred()
        self._removed.append(removed)
        self._hand_over_in(patience)
        await removed

    def stop(self) -> Deferred[None]:
        """Commit what still waits; fires when the database is closed."""
        self._hand_over()
        self._jobs.put(None)
        return self._stopped

    def _gather(self, job: Job) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self._gathered.append((job, done))
        return done

    def _hand_over_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._reactor.callLater(seconds, self._hand_over)
        elif self._timer.getTime() > self._reactor.seconds() + seconds:
            self._timer.reset(seconds)

    def _hand_over(self) -> None:
        """Give all that was gathered to the thread."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._removed:
            waiting, self._removed = self._removed, []
            self._gather(Job(removals=self._removals)).addBoth(_tell, waiting)
            self._removals = []
        gathered, self._gathered = self._gathered, []
        for job in gathered:
            self._jobs.put(job)

    # --- in the thread -----------------------------------------------------------

    def _run(self) -> None:
        going_on = True
        while going_on:
            batch = [self._jobs.get()]
            while len(batch) < _BATCH:
                try:
                    batch.append(self._jobs.get_nowait())
                except Empty:
                    break
            going_on = None not in batch
            results = self._commit([waiting for waiting in batch if waiting])
            self._reactor.callFromThread(_finish, results)
        self._connection.close()
        os.close(self._turn)
        self._reactor.callFromThread(self._stopped.callback, None)

    def _commit(self, batch: Sequence[_Waiting]) -> Sequence[_Result]:
        """Commit all together; where one of them may be to blame, each by itself."""
        if not batch:
            return ()
        intake = [waiting for waiting in batch if waiting[0].is_intake]
        if intake and (failure := self._lack_of_room(len(intake))):
            rest = [waiting for waiting in batch if not waiting[0].is_intake]
            return [*((done, failure) for _, done in intake), *self._commit(rest)]
        begun = time.monotonic()
        try:
            results = self._transact([job for job, _ in batch])
            self.on_commit(len(batch), time.monotonic() - begun)
        except Exception as error:  # noqa: BLE001 (outermost here: the thread must go on)
            if is_full(error) and len(intake) < len(batch) and self._folder.throw_ballast():
                self.log.error("{path}: the disk is full: make room", path=str(self._folder.path))
                return self._commit(batch)
            if len(batch) > 1 and _may_be_one_job(error):
                return [result for waiting in batch for result in self._commit([waiting])]
            failure = self._failure(error, len(batch))
            results = [failure] * len(batch)
        return [(done, result) for (_, done), result in zip(batch, results, strict=True)]

    def _transact(self, jobs: Sequence[Job]) -> Sequence[Any]:
        connection = self._connection
        arrivals = [arrival for job in jobs for arrival in job.arrivals]
        updates = [settlement for job in jobs for settlement in job.updates]
        removals = [number for job in jobs for number in job.removals]
        with turn(self._turn), transaction(connection):
            rows.insert(connection, arrivals)
            if updates:
                rows.update(connection, self._owner, updates)
            if removals:
                rows.remove(connection, removals)
            return [job.action and job.action(connection) for job in jobs]

    def _lack_of_room(self, count: int) -> Failure | None:
        """Why so many new messages can't be taken; None: they can."""
        if self._folder.has_room():
            return None
        try:
            self._folder.require_room(spare(self._connection))
        except OSError as error:
            return self._failure(error, count)
        return None

    def _failure(self, error: Exception, count: int) -> Failure:
        if isinstance(error, (sqlite3.Error, OSError)):
            error = translated(error, self._folder)
            self.log.error("{count} spool jobs failed: {error}", count=count, error=str(error))
        return Failure(error)


def _tell(result: Any, waiting: Sequence[Deferred[Any]]) -> None:
    for each in waiting:
        each.callback(result)


def _finish(results: Sequence[_Result]) -> None:
    for done, result in results:
        done.callback(result)


_NOBODYS_FAULT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}


def _may_be_one_job(error: Exception) -> bool:
    """Whether the others may succeed.  A full disk may have room for the small ones."""
    if isinstance(error, sqlite3.Error):
        return primary_code(error) not in _NOBODYS_FAULT
    return not isinstance(error, OSError)


@contextmanager
def turn(descriptor: int) -> Iterator[None]:
    """Wait for our turn to commit, in the kernel: SQLite itself would poll for it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
