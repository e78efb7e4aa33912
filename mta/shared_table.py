"""Small SQLite files beside the spool, which all processes share.

They hold what may be lost: a commit is complete or not there, and a loss of power may take the
last ones.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mta.files import create

BUSY_TIMEOUT = 5.0  # seconds to wait for another process, which has it for a moment each time
CACHE = 1024  # KiB of memory for pages
MAX_LOG = 4 * 2**20  # octets that the write-ahead log keeps on the disk
MAX_ROWS = 200_000  # of a table that `make_room` bounds: about 20 MB
SPARED_ROWS = 1000  # as many at least are forgotten at a time

_SETTINGS = f"""
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA cache_size = -{CACHE};
PRAGMA journal_size_limit = {MAX_LOG};
"""

T = TypeVar("T")


class SharedTable:
    """One such file.  `schema`: statements that make what is not there yet.

    It is opened at the first use, and closed with the last reference.  A thread at a time uses it.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._schema = schema
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def change(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function within a transaction, and return its result.

        Blocks.  Raises OSError.
        """
        with self.transaction() as connection:
            return action(connection)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Begin a transaction, and commit it at the end of the block.

        Blocks.  Raises OSError.
        """
        with self._lock:
            try:
                connection = self._opened()
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    yield connection
            except sqlite3.OperationalError as error:
                raise OSError(f"{self.path}: {error}") from None
            except sqlite3.DatabaseError as error:
                raise OSError(
                    f"{self.path}: {error}: stop the server, remove the file, and start it"
                ) from None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            os.close(create(self.path, os.O_RDWR))
            connection = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            try:
                connection.executescript(_SETTINGS + self._schema)
            except BaseException:
                connection.close()
                raise
            weakref.finalize(self, connection.close)
            self._connection = connection
        return self._connection


def make_room(connection: sqlite3.Connection, table: str, key: str, worth: str, now: float) -> None:
    """Forget rows of a table that is full.

    Those go first whose time, in the column ``until``, is over, then those of the least `worth`, a
    column, that end first.  `key` are the columns of the primary key.
    """
    (rows,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 (ours)
    if rows < MAX_ROWS:
        return
    delete = f"DELETE FROM {table} WHERE"  # noqa: S608 (our own words)
    gone = connection.execute(f"{delete} until < ?", (now,)).rowcount
    if gone < SPARED_ROWS:
        least = f"SELECT {key} FROM {table} ORDER BY {worth}, until LIMIT ?"  # noqa: S608
        connection.execute(f"{delete} ({key}) IN ({least})", (SPARED_ROWS,))
