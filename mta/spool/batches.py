"""Commits jobs in one transaction, or one by one where it fails."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence, Set
from contextlib import suppress
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.files import create
from mta.limited_log import LimitedLog
from mta.spool import rows
from mta.spool.database import (
    FAULTS,
    is_full,
    locked,
    open_database,
    primary_code,
    spare,
    transaction,
    translated,
)
from mta.spool.folder import Folder
from mta.spool.holds import StandingHold, StandingHolds, put_on_hold
from mta.spool.interfaces import IBatchWriter
from mta.spool.jobs import Arrived, Job
from mta.spool.mending import IndexMender
from mta.spool.taken import TakenMail


@implementer(IBatchWriter)
class BatchWriter:
    """The connection that writes for one owner."""

    log = Logger()

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._limited = LimitedLog(self.log)
        self._holds = StandingHolds(folder)
        self._standing: Sequence[StandingHold] = ()
        self._taken = TakenMail()
        self._mender = IndexMender(folder)

    def open(self, owner: int) -> None:
        """See `IBatchWriter.open`."""
        self._owner = owner
        self._connection = open_database(self._folder)
        self._commit_lock = create(self._folder.commit_lock, os.O_RDWR)

    def close(self) -> None:
        """See `IBatchWriter.close`."""
        with suppress(sqlite3.Error, OSError):
            self._connection.close()
            os.close(self._commit_lock)

    def commit(self, jobs: Sequence[Job]) -> list[Any]:
        """See `IBatchWriter.commit`."""
        if not jobs:
            return []
        intake = {job for job in jobs if job.is_intake}
        if intake and (failure := self._lack_of_room(len(intake))):
            return self._refuse(jobs, intake, failure)
        with_mail = {job for job in jobs if job.arrivals}
        if with_mail and (failure := self._read_holds()):
            return self._refuse(jobs, with_mail, failure)
        try:
            return self._transact(jobs)
        except Exception as error:  # noqa: BLE001 - a bug in one job must not harm the others
            if is_full(error) and len(intake) < len(jobs) and self._drop_ballast():
                return self.commit(jobs)
            if self._mender.has_looked(error):
                return self.commit(jobs)
            if len(jobs) > 1 and _may_be_one_job(error):
                return [result for job in jobs for result in self.commit([job])]
            return [self._failure(error, len(jobs))] * len(jobs)

    def _refuse(self, jobs: Sequence[Job], refused: Set[Job], failure: Failure) -> list[Any]:
        """Commit all jobs but the refused ones."""
        others = iter(self.commit([job for job in jobs if job not in refused]))
        return [failure if job in refused else next(others) for job in jobs]

    def _transact(self, jobs: Sequence[Job]) -> list[Any]:
        connection = self._connection
        arrivals = [arrival for job in jobs for arrival in job.arrivals]
        if self._standing:
            arrivals = [put_on_hold(arrival, self._standing) for arrival in arrivals]
        updates = [settlement for job in jobs for settlement in job.updates]
        removals = [number for job in jobs for number in job.removals]
        with locked(self._commit_lock), transaction(connection):
            sifted = self._taken.sift(connection, arrivals)
            rows.insert(connection, [each for each in sifted if each.envelope.recipients])
            if updates:
                rows.update(connection, self._owner, updates)
            if removals:
                rows.remove(connection, removals)
            acted = [job.action and job.action(connection) for job in jobs]
        arrived = Arrived.of(arrivals, sifted)
        return [done if job.action else arrived for job, done in zip(jobs, acted, strict=True)]

    def _read_holds(self) -> Failure | None:
        """Read the standing holds; returns the reason where that can't be done."""
        try:
            self._standing = self._holds.current()
        except OSError as error:
            self._limited.error("holds", "no mail is taken: {error}", error=str(error))
            return Failure(error)
        return None

    def _drop_ballast(self) -> bool:
        """Make room on a full disk; returns whether that could be done."""
        path = str(self._folder.path)
        self._limited.error("full", "{path}: the disk is full: make room", path=path)
        try:
            return self._folder.drop_ballast()
        except OSError:
            return False

    def _lack_of_room(self, count: int) -> Failure | None:
        """The reason to refuse so many new messages, if there is one."""
        try:
            if not self._folder.has_room():
                self._folder.require_room(spare(self._connection))
        except FAULTS as error:
            return self._failure(error, count)
        return None

    def _failure(self, error: Exception, count: int) -> Failure:
        if isinstance(error, FAULTS):
            error = translated(error, self._folder)
            self._limited.error(
                f"{type(error).__name__} {error.errno}",
                "{count} spool jobs failed: {error}",
                count=count,
                error=str(error),
            )
        return Failure(error)


# Of the disk, the file or another program, whatever the job was.
_NOT_THE_JOB = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}


def _may_be_one_job(error: Exception) -> bool:
    """Tell whether other jobs may succeed.

    A full disk may have room for small ones.
    """
    if isinstance(error, sqlite3.Error):
        return primary_code(error) not in _NOT_THE_JOB
    return not isinstance(error, OSError)
