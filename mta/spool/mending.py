"""Makes damaged indexes of the spool's database anew.

All that an index has is in its table as well.  What is damaged elsewhere stays as it is.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import ParamSpec, TypeVar

from mta.spool.database import BUSY_TIMEOUT, commit_lock, primary_code, transaction
from mta.spool.folder import Folder

P = ParamSpec("P")
T = TypeVar("T")

PAUSE = 60.0  # seconds: a look reads all indexes, and other damage goes on

_INDEXES = "SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'index' AND sql <> ''"


class IndexMender:
    """Looks after the indexes of one spool, where damage was met.  Everything blocks.

    `clock`: seconds, of a clock that is never set.
    """

    def __init__(self, folder: Folder, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._next = clock()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function, and once more where that is worth it.  Raises what it raises."""
        try:
            return function(*args, **kwargs)
        except sqlite3.Error as error:
            if not self.has_looked(error):
                raise
        return function(*args, **kwargs)

    def has_looked(self, error: Exception) -> bool:
        """Mend what led to an error; tells whether to try again.

        Call it without the commit lock, and outside of transactions.
        """
        if not _is_corrupt(error) or self._clock() < self._next:
            return False
        self._next = self._clock() + PAUSE
        code = getattr(error, "sqlite_errorcode", 0)
        with suppress(sqlite3.Error, OSError):  # the other try says what is wrong
            for name in mend(self._folder, every=code == sqlite3.SQLITE_CORRUPT_INDEX):
                self._tell(name)
        return True

    def _tell(self, index: str) -> None:
        # Tools use the module, and begin without Twisted.
        from twisted.logger import Logger

        log = Logger()
        log.error(
            "{path}: its index {index} was damaged, and is made anew: look after the disk",
            path=str(self._folder.database),
            index=index,
        )


def mend(folder: Folder, *, every: bool) -> Iterator[str]:
    """Make indexes anew that can't be read, or `every` one; their names.

    What could not be made anew, as its table is damaged as well, is left as it was.  Raises
    sqlite3.Error or OSError.
    """
    uri = f"{folder.database.absolute().as_uri()}?mode=rw"
    with closing(
        sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
    ) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        for name, table, sql in connection.execute(_INDEXES).fetchall():
            if not every and _is_readable(connection, name, table, sql):
                continue
            with commit_lock(folder):
                # Another process may have been faster.
                if (every or not _is_readable(connection, name, table, sql)) and _is_made_anew(
                    connection, name, sql
                ):
                    yield name


def _is_readable(connection: sqlite3.Connection, name: str, table: str, sql: str) -> bool:
    """Tell whether all pages of an index can be read.  It reads nothing of the table."""
    where = sql.partition(" WHERE ")[2] or "true"
    query = f"SELECT count(*) FROM {table} INDEXED BY {name} WHERE {where}"  # noqa: S608 (our own)
    try:
        connection.execute(query).fetchone()
    except sqlite3.DatabaseError as error:
        if not _is_corrupt(error):
            raise
        return False
    return True


def _is_made_anew(connection: sqlite3.Connection, name: str, sql: str) -> bool:
    """Make an index anew, if its table can be read.

    SQLite reads the pages of the old one to free them.  Where it can't, they are forgotten, and
    take room until `VACUUM`.
    """
    for way in (_refilled, _replaced):
        try:
            with transaction(connection):
                way(connection, name, sql)
        except sqlite3.DatabaseError as error:
            if not _is_corrupt(error):
                raise
        else:
            return True
    return False


def _refilled(connection: sqlite3.Connection, name: str, _: str) -> None:
    connection.execute(f"REINDEX {name}")


def _replaced(connection: sqlite3.Connection, name: str, sql: str) -> None:
    connection.execute("PRAGMA writable_schema = ON")
    try:
        connection.execute("DELETE FROM sqlite_schema WHERE type = 'index' AND name = ?", (name,))
    finally:
        connection.execute("PRAGMA writable_schema = RESET")  # and forgets what it knew of it
    connection.execute(sql)


def _is_corrupt(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and primary_code(error) == sqlite3.SQLITE_CORRUPT
