"""Commits jobs in one transaction of PostgreSQL.

Where it fails, each is committed by itself.  Nothing waits for a result but what acts: a batch of
new mail is one round trip.  Where the connection breaks during COMMIT it is unknown what became of
it.  The jobs are then refused, so that the sender keeps its mail, and what was committed all the
same is removed later.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import errors
from psycopg.pq import ConnStatus
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.limited_log import LimitedLog
from mta.spool.database import SpoolAway
from mta.spool.holds import StandingHold, put_on_hold
from mta.spool.interfaces import IBatchWriter
from mta.spool.jobs import Arrived, Job
from mta.spool.postgres import owner_rows, rows, schema
from mta.spool.postgres.holds import standing
from mta.spool.postgres.owner_rows import OwnerName
from mta.spool.postgres.server import FEW_ROWS, Connection, Server, warnings_of
from mta.spool.postgres.taken import PostgresTakenMail
from mta.spool.rows import Arrival
from mta.spool.taken import keys_of

HOLDS_INTERVAL = 5.0  # seconds between two looks at the standing holds: a round trip each


class NotConfirmed(psycopg.OperationalError):
    """COMMIT gave no answer, or a warning: it may have happened."""


@implementer(IBatchWriter)
class PostgresWriter:
    """The connection that writes for one owner."""

    log = Logger()

    def __init__(
        self,
        server: Server,
        node: str,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now`: seconds since the epoch; `monotonic`: of another clock."""
        self._server = server
        self._node = node
        self._has_joined = False
        self._monotonic = monotonic
        self._limited = LimitedLog(self.log)
        self._connection: Connection | None = None
        self._standing: Sequence[StandingHold] = ()
        self._next_look = 0.0
        # Messages that are to be removed where they are there, and the keys of `PostgresTakenMail`.
        self._unconfirmed: dict[int, Sequence[str]] = {}
        self._taken = PostgresTakenMail(now)
        self.is_away = False  # the last batch found no database

    def open(self, owner: int) -> None:
        """See `IBatchWriter.open`; where the database is away, that is done later."""
        self._owner = owner
        with suppress(SpoolAway):
            self._connected()

    def close(self) -> None:
        """See `IBatchWriter.close`."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()

    def commit(self, jobs: Sequence[Job]) -> list[Any]:
        """See `IBatchWriter.commit`."""
        if not jobs:
            return []
        try:
            return self._repeated(jobs)
        except Exception as error:  # noqa: BLE001 - a bug in one job must not harm the others
            if len(jobs) > 1 and _may_be_one_job(error):
                return [result for job in jobs for result in self.commit([job])]
            return [self._failure(error, len(jobs))] * len(jobs)

    def _repeated(self, jobs: Sequence[Job]) -> list[Any]:
        """Commit, once more where others were in the way."""
        try:
            return self._transact(jobs)
        except (errors.DeadlockDetected, errors.SerializationFailure):
            return self._transact(jobs)

    def _transact(self, jobs: Sequence[Job]) -> list[Any]:
        connection = self._connected()
        arrivals = [arrival for job in jobs for arrival in job.arrivals]
        if arrivals:
            self._look_at_holds(connection)
            if self._standing:
                arrivals = [put_on_hold(arrival, self._standing) for arrival in arrivals]
        sifted, acted = self._commit(connection, jobs, arrivals)
        arrived = Arrived.of(arrivals, sifted)
        return [done if job.action else arrived for job, done in zip(jobs, acted, strict=True)]

    def _commit(
        self, connection: Connection, jobs: Sequence[Job], arrivals: Sequence[Arrival]
    ) -> tuple[Sequence[Arrival], list[Any]]:
        """Do all in one transaction.

        Returns what is left of new messages, and what the actions return.
        """
        committing = False
        try:
            with warnings_of(connection) as warnings:
                with connection.pipeline():
                    connection.execute("BEGIN")
                    self._remove_unconfirmed(connection)
                    sifted = self._taken.sift(connection, arrivals)
                    acted = self._act(connection, jobs, sifted)
                    committing = True
                    done = connection.execute("COMMIT")
                if warnings or done.statusmessage != "COMMIT":
                    raise NotConfirmed(f"COMMIT was not confirmed: {'; '.join(warnings)}")
        except BaseException as error:
            is_unknown = isinstance(error, NotConfirmed) or (committing and connection.closed)
            if is_unknown:
                self._unconfirmed |= {each.number: keys_of(each) for each in arrivals}
            self._roll_back(connection)
            raise
        self._unconfirmed.clear()
        self.is_away = False
        return sifted, acted

    def _act(
        self, connection: Connection, jobs: Sequence[Job], arrivals: Sequence[Arrival]
    ) -> list[Any]:
        updates = [settlement for job in jobs for settlement in job.updates]
        removals = [number for job in jobs for number in job.removals]
        rows.insert(connection, [each for each in arrivals if each.envelope.recipients])
        if updates:
            rows.update(connection, self._owner, updates)
        if removals:
            rows.remove(connection, removals)
        return [job.action and job.action(connection) for job in jobs]

    def _remove_unconfirmed(self, connection: Connection) -> None:
        """Remove what an unconfirmed transaction left, as long as it is ours.

        No transaction of ours begins before the one before it has ended, wherever it hangs.
        """
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (self._owner,))
        if self._unconfirmed:
            rows.remove_ours(connection, self._unconfirmed, self._owner)

    def _roll_back(self, connection: Connection) -> None:
        with suppress(psycopg.Error):
            if not connection.closed:
                connection.execute("ROLLBACK")
                return
        with suppress(psycopg.Error):
            connection.close()

    def _connected(self) -> Connection:
        """The connection, made anew where the server has closed it.  Raises OSError."""
        if self._connection is None or _is_broken(self._connection):
            self.close()
            self._connection = None
            try:
                self._connection = self._joined()
            except OSError:
                self.is_away = True
                raise
        return self._connection

    def _joined(self) -> Connection:
        """A connection, whose owner is known.  Raises OSError."""
        connection = self._server.connect(FEW_ROWS)
        if not self._has_joined:
            try:
                with self._server.as_oserror(), schema.prepared(self._server, connection):
                    owner_rows.register(connection, OwnerName(self._owner, self._node))
            except BaseException:
                connection.close()
                raise
            self._has_joined = True
        return connection

    # --- standing holds -----------------------------------------------------------------

    def _look_at_holds(self, connection: Connection) -> None:
        now = self._monotonic()
        if now >= self._next_look:
            self._standing = standing(connection)
            self._next_look = now + HOLDS_INTERVAL

    # --- failures -----------------------------------------------------------------------

    def _failure(self, error: Exception, count: int) -> Failure:
        known = self._server.translated(error) if isinstance(error, psycopg.Error) else error
        if isinstance(known, OSError):
            self._limited.error(
                f"{type(known).__name__} {known.errno}",
                "{count} spool jobs failed: {error}",
                count=count,
                error=str(known),
            )
        return Failure(known)


def _is_broken(connection: Connection) -> bool:
    """Tell whether the server has closed the connection, without asking it."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    while poll.poll(0):
        try:
            connection.pgconn.consume_input()
        except psycopg.Error:
            return True
        if connection.pgconn.status == ConnStatus.BAD:
            return True
    return False


def _may_be_one_job(error: Exception) -> bool:
    """Tell whether other jobs may succeed.

    A full disk may have room for small ones.
    """
    if isinstance(error, psycopg.Error):
        return not isinstance(error, psycopg.OperationalError) or isinstance(error, errors.DiskFull)
    return not isinstance(error, OSError)
