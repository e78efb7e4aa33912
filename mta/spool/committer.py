"""Group commit: one transaction, and one sync, for all that waits.

A thread of its own owns the connection that writes.  All jobs that came while the last commit
was under way go into the next one, and the reactor hears once of the whole batch.  A new message
waits for a moment where others are about to come, and removals wait for a commit that somebody
needs: under load, one commit serves many, and that is what its cost is made of.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mta.interfaces import ICommitMeter
from mta.limited_log import LimitedLog
from mta.queued import Settlement
from mta.spool import rows
from mta.spool.database import (
    is_full,
    open_database,
    primary_code,
    spare,
    transaction,
    translated,
    turn,
)
from mta.spool.folder import Folder, create

COMPANY = 0.001  # seconds that a new message waits for others to share its commit with
STOP_TIMEOUT = 30.0  # seconds, as long as SQLite waits for a lock
_BATCH = 500  # jobs in one transaction: bounds what a rollback throws away
_NO_MEMORY_PAUSE = 0.1  # seconds


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
    """Commits the jobs of one owner, in batches, away from the reactor.

    Whatever fails, everyone who waits is answered: the thread ends with `stop` alone.  If it
    should end otherwise, what waits and all that comes fails with OSError, and `trouble` says so.
    """

    log: ClassVar[Logger] = Logger()

    def __init__(self, folder: Folder, reactor: Any, meter: ICommitMeter | None = None) -> None:
        """`reactor`: IReactorFromThreads and IReactorTime; `meter` hears of each commit."""
        self._meter = meter
        self._limited = LimitedLog(self.log)
        self.folder = folder
        self._reactor = reactor
        self._jobs: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._gathered: list[_Waiting] = []  # jobs that wait for company
        self._removals: list[int] = []  # the same, of messages
        self._removed: list[Deferred[Any]] = []  # who is to hear of that
        self._timer: IDelayedCall | None = None
        self._thread = threading.Thread(target=self._run, name="spool committer", daemon=True)
        self._stopped: Deferred[None] | None = None
        self._ended = False  # there is no thread any more
        self._owner = 0

    def start(self, owner: int) -> None:
        """Open the database, and begin to commit for an owner.  Raises SpoolDamaged or OSError."""
        self._owner = owner
        self._connection = open_database(self.folder)
        self._commit_lock = create(self.folder.commit_lock, os.O_RDWR)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads
            raise OSError(errno.EAGAIN, str(error)) from None

    @property
    def has_ended(self) -> bool:
        """Whether nothing is committed any more."""
        return self._ended

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
        """Commit what still waits; fires when the database is closed.

        It fires after `STOP_TIMEOUT` in any case: a disk may never answer.
        """
        if self._stopped is None:
            self._stopped = Deferred()
            self._stopped.addTimeout(STOP_TIMEOUT, self._reactor)
            self._stopped.addErrback(self._stuck)
            if not self._thread.is_alive():
                self._stopped.callback(None)
                return self._stopped
            self._hand_over()
            self._jobs.put(None)
        return self._stopped

    def _stuck(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        self.log.error("{path}: the last commit does not end", path=str(self.folder.path))

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
        if self._ended:
            self._refuse_all()

    def _refuse_all(self) -> None:
        """Fail all that waits for a thread that is no more."""
        error = OSError(errno.EIO, "the thread that commits has ended", str(self.folder.path))
        with suppress(Empty):
            while True:
                waiting = self._jobs.get_nowait()
                if waiting is not None:
                    waiting[1].errback(Failure(error))
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)

    def _finish(self, results: Sequence[_Result], seconds: float) -> None:
        """Answer all of a batch, in the reactor."""
        for done, result in results:
            done.callback(result)
        if seconds and self._meter is not None:
            try:
                self._meter.committed(len(results), seconds)
            except Exception:  # noqa: BLE001 - whoever counts must not hinder who commits
                self.log.failure("counting a commit failed")

    # --- in the thread -----------------------------------------------------------

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._answer(batch)
        except BaseException:  # noqa: BLE001 - outermost of the thread: somebody has to hear of it
            self.log.failure("the thread that commits failed")
        finally:
            self._ended = True
            with suppress(sqlite3.Error, OSError):
                self._connection.close()
                os.close(self._commit_lock)
            self._call(self._refuse_all)

    def _next_batch(self) -> list[_Waiting] | None:
        """All that waits, once there is something; None: it is time to stop."""
        first = self._jobs.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < _BATCH:
            try:
                waiting = self._jobs.get_nowait()
            except Empty:
                break
            if waiting is None:
                self._jobs.put(None)
                break
            batch.append(waiting)
        # Results come in this order, and in a transaction actions see what the others did.
        batch.sort(key=lambda waiting: waiting[0].action is not None)
        return batch

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        """Commit a batch and answer everyone who waits for it, whatever goes wrong."""
        begun = time.monotonic()
        try:
            results = self._commit(batch)
        except BaseException as error:  # noqa: BLE001 - whatever it is, all are waiting for it
            failure = Failure(error)
            self.log.failure("a commit failed", failure)
            results = [(done, failure) for _, done in batch]
        took = time.monotonic() - begun
        failed = all(isinstance(result, Failure) for _, result in results)
        self._call(self._finish, results, 0.0 if failed else took)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        """Let the reactor call a function; where there is no memory for it now, a moment later."""
        while True:
            try:
                self._reactor.callFromThread(function, *arguments)
            except (MemoryError, OSError):
                time.sleep(_NO_MEMORY_PAUSE)
            else:
                return

    def _commit(self, batch: Sequence[_Waiting]) -> Sequence[_Result]:
        """Commit all together; where one of them may be to blame, each by itself."""
        if not batch:
            return ()
        intake = [waiting for waiting in batch if waiting[0].is_intake]
        if intake and (failure := self._lack_of_room(len(intake))):
            rest = [waiting for waiting in batch if not waiting[0].is_intake]
            return [*((done, failure) for _, done in intake), *self._commit(rest)]
        try:
            results = self._transact([job for job, _ in batch])
        except Exception as error:  # noqa: BLE001 - a bug in one job must not harm the others
            if is_full(error) and len(intake) < len(batch) and self._throw_ballast():
                return self._commit(batch)
            if len(batch) > 1 and _may_be_one_job(error):
                return [result for waiting in batch for result in self._commit([waiting])]
            results = [self._failure(error, len(batch))] * len(batch)
        return [(done, result) for (_, done), result in zip(batch, results, strict=True)]

    def _transact(self, jobs: Sequence[Job]) -> Sequence[Any]:
        connection = self._connection
        arrivals = [arrival for job in jobs for arrival in job.arrivals]
        updates = [settlement for job in jobs for settlement in job.updates]
        removals = [number for job in jobs for number in job.removals]
        with turn(self._commit_lock), transaction(connection):
            rows.insert(connection, arrivals)
            if updates:
                rows.update(connection, self._owner, updates)
            if removals:
                rows.remove(connection, removals)
            return [job.action and job.action(connection) for job in jobs]

    def _throw_ballast(self) -> bool:
        """Make room on a full disk; whether that could be done."""
        path = str(self.folder.path)
        self._limited.error("full", "{path}: the disk is full: make room", path=path)
        try:
            return self.folder.throw_ballast()
        except OSError:
            return False

    def _lack_of_room(self, count: int) -> Failure | None:
        """Why so many new messages can't be taken; None: they can."""
        try:
            if not self.folder.has_room():
                self.folder.require_room(spare(self._connection))
        except (OSError, sqlite3.Error) as error:
            return self._failure(error, count)
        return None

    def _failure(self, error: Exception, count: int) -> Failure:
        if isinstance(error, (sqlite3.Error, OSError)):
            error = translated(error, self.folder)
            self._limited.error(
                f"{type(error).__name__} {error.errno}",
                "{count} spool jobs failed: {error}",
                count=count,
                error=str(error),
            )
        return Failure(error)


def _tell(result: Any, waiting: Sequence[Deferred[Any]]) -> None:
    for each in waiting:
        each.callback(result)


_NOBODYS_FAULT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}


def _may_be_one_job(error: Exception) -> bool:
    """Whether the others may succeed.  A full disk may have room for the small ones."""
    if isinstance(error, sqlite3.Error):
        return primary_code(error) not in _NOBODYS_FAULT
    return not isinstance(error, OSError)
