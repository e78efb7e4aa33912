"""The database server: its place, connections to it, and its errors."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from mta.queued import SpoolFull
from mta.spool.database import SpoolAway, SpoolUnusable
from mta.spool.postgres.refusals import misread, no_address, reason, words

P = ParamSpec("P")
T = TypeVar("T")

Connection = psycopg.Connection[Any]

MIN_VERSION = 12  # of the server: the oldest that knows all of our statements
PAUSE = 1.0  # seconds after a failed connection before the next one: threads wait for each

# A server that answers no more is noticed within this time; what the URL says itself stands.
_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 5,  # seconds for each host
    "keepalives_idle": 10,  # seconds
    "keepalives_interval": 5,  # seconds
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
    "application_name": "mta",
    "client_encoding": "UTF8",
}

# A careless default of the server's must not weaken a commit.  Locks of ours are held for
# milliseconds, and no transaction of ours waits for anything but the database.
_SETTINGS = """
SET synchronous_commit = on;
SET default_transaction_isolation = 'read committed';
SET lock_timeout = '20s';
SET statement_timeout = '120s';
SET idle_in_transaction_session_timeout = '60s';
SET jit = off
"""

# For connections that ask for a few rows of tables that grow and shrink all day: a plan that reads
# a whole one is wrong, whatever was known of it when the plan was made.
FEW_ROWS = """
SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET max_parallel_workers_per_gather = 0
"""


class Server:
    """The server that a URL names.

    All connections of a process share it, so that a server that is away is asked once a second.
    """

    def __init__(self, url: str) -> None:
        """Read the URL.  Raises SpoolUnusable where it is none."""
        try:
            named = conninfo_to_dict(url)
        except psycopg.Error as error:
            raise SpoolUnusable(no_address(url, error)) from None
        if problem := misread(named):
            raise SpoolUnusable(problem)
        self.name = _name(named)
        self._conninfo = make_conninfo("", **{**_DEFAULTS, **named})
        self._lock = threading.Lock()
        self._failure = ""
        self._next_try = 0.0

    def connect(self, setting: str = "") -> Connection:
        """Open a connection, with a statement of its user's.  Blocks.

        Raises SpoolAway, or SpoolUnusable where the server refuses us.
        """
        with self._lock:
            if self._failure and time.monotonic() < self._next_try:
                raise self.away(self._failure)
        try:
            connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=2)
            try:
                connection.execute(f"{_SETTINGS}; {setting}".encode())
            except BaseException:
                connection.close()
                raise
        except psycopg.Error as error:
            found = reason(error)
            with self._lock:
                self._failure = found.text
                self._next_try = time.monotonic() + PAUSE
            if found.is_lasting:
                raise SpoolUnusable(f"{self.name}: {found.text}") from None
            raise self.away(found.text) from None
        self._failure = ""
        self._require_version(connection)
        return connection

    def _require_version(self, connection: Connection) -> None:
        """Raise SpoolUnusable where the server is too old."""
        version = connection.info.server_version // 10_000
        if version < MIN_VERSION:
            connection.close()
            raise SpoolUnusable(
                f"{self.name}: it is PostgreSQL {version}: version {MIN_VERSION} or later is needed"
            )

    def away(self, reason: str) -> SpoolAway:
        """The error for people where the server does not answer."""
        return SpoolAway(errno.EHOSTUNREACH, f"the database can't be reached: {reason}", self.name)

    @contextmanager
    def as_oserror(self) -> Iterator[None]:
        """Raise the spool's errors for those of the database."""
        try:
            yield
        except psycopg.Error as error:
            raise self.translated(error) from error

    def translated(self, error: psycopg.Error) -> OSError:
        """SpoolFull, SpoolUnusable or OSError, in one line that names the database."""
        if isinstance(error, errors.DiskFull):
            return SpoolFull(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)
        if isinstance(error, errors.InsufficientPrivilege):
            return SpoolUnusable(
                f"{self.name}: {words(error)}: let the user in `spool` own the database"
            )
        if isinstance(error, errors.ReadOnlySqlTransaction):
            text = (
                f"{words(error)}: it is a standby: add target_session_attrs=read-write to the URL"
            )
            return OSError(errno.EROFS, text, self.name)
        if isinstance(error, (errors.UndefinedTable, errors.UndefinedColumn)):
            return SpoolUnusable(
                f"{self.name}: {words(error)}: its tables are not those of a spool"
            )
        return OSError(errno.EIO, words(error), self.name)


def _name(named: dict[str, Any]) -> str:
    """The database as people know it, without a password."""
    host = named.get("host") or named.get("hostaddr") or ""
    return f"postgresql://{host}/{named.get('dbname') or named.get('user') or ''}"


class Session:
    """One connection, which one thread uses at a time.

    It is opened anew when it broke.  `waits`: False where a thread that finds it in use gets an
    OSError at once.  `setting` is a statement for each new connection.
    """

    def __init__(self, server: Server, *, waits: bool = True, setting: str = "") -> None:
        self.server = server
        self._waits = waits
        self._setting = setting
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def call(
        self,
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a function with the connection.  Raises OSError for the database's errors.

        Where the connection turns out to be broken it is called again with a new one: it must be
        one that may be repeated.
        """
        if not self._lock.acquire(blocking=self._waits):
            raise BlockingIOError(errno.EAGAIN, "the queue is being read already")
        try:
            is_old = self._connection is not None
            try:
                with self.server.as_oserror():
                    return function(self._opened(), *args, **kwargs)
            except OSError:
                if not (is_old and self._forget_broken()):
                    raise
            with self.server.as_oserror():
                return function(self._opened(), *args, **kwargs)
        finally:
            self._forget_broken()
            self._lock.release()

    def close(self) -> None:
        """Wait for the thread that uses it now, and close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def _opened(self) -> Connection:
        if self._connection is None:
            self._connection = self.server.connect(self._setting)
        return self._connection

    def _forget_broken(self) -> bool:
        if self._connection is None or not self._connection.closed:
            return False
        with suppress(psycopg.Error):
            self._connection.close()
        self._connection = None
        return True


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Do all of it or nothing.  It is on stable storage when this ends.

    A warning at the commit is a failure: the wait for a standby was cancelled, and the commit may
    be lost with this server.
    """
    with warnings_of(connection) as warnings, connection.transaction():
        yield
    if warnings:
        raise psycopg.OperationalError(f"the commit was not confirmed: {'; '.join(warnings)}")


@contextmanager
def warnings_of(connection: Connection) -> Iterator[list[str]]:
    """Collect the warnings of the server."""
    found: list[str] = []

    def note(diagnostic: errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            found.append(diagnostic.message_primary or "")

    connection.add_notice_handler(note)
    try:
        yield found
    finally:
        connection.remove_notice_handler(note)
