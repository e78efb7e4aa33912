"""Shared tables as small SQLite files beside the spool.

A commit is complete or not there, and a loss of power may take the last ones.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from zope.interface import implementer

from mta.files import create
from mta.shared_tables.forms import TableForm, TableSet
from mta.shared_tables.interfaces import ISharedTables, IStatements, ITableStore
from mta.shared_tables.statements import Statements

BUSY_TIMEOUT = 5.0  # seconds to wait for another process, which has it for a moment each time
CACHE = 1024  # KiB of memory for pages
MAX_LOG = 4 * 2**20  # octets that the write-ahead log keeps on the disk

_SETTINGS = f"""
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA cache_size = -{CACHE};
PRAGMA journal_size_limit = {MAX_LOG};
"""

T = TypeVar("T")


@implementer(ITableStore)
class TableFolder:
    """The files in a spool folder, one for each set of tables."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, tables: TableSet) -> TableFile:
        """See `ITableStore.open`."""
        return TableFile(self._folder / f"{tables.name}.sqlite", tables)

    def close(self) -> None:
        """See `ITableStore.close`: each file is closed with its last reference."""


@implementer(ISharedTables)
class TableFile:
    """One such file.

    It is opened at the first use, and closed with the last reference.  A thread at a time uses it.
    """

    def __init__(self, path: Path, tables: TableSet) -> None:
        self._path = path
        self._tables = tables
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """See `ISharedTables.exists`."""
        try:
            return self._path.exists()
        except OSError:
            return True  # who uses it is told why that can't be

    def change(self, action: Callable[[IStatements], T]) -> T:
        """See `ISharedTables.change`."""
        with self._lock:
            try:
                connection = self._opened()
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    return action(Statements(connection))
            except MemoryError:  # Python's own, also where SQLite has none
                text = os.strerror(errno.ENOMEM)
                raise OSError(errno.ENOMEM, text, str(self._path)) from None
            except sqlite3.OperationalError as error:
                raise OSError(f"{self._path}: {error}") from None
            except sqlite3.DatabaseError as error:
                raise OSError(
                    f"{self._path}: {error}: stop the server, remove the file, and start it"
                ) from None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            os.close(create(self._path, os.O_RDWR))
            connection = sqlite3.connect(
                self._path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            try:
                connection.executescript(_SETTINGS + "".join(map(_made, self._tables.tables)))
            except BaseException:
                connection.close()
                raise
            weakref.finalize(self, connection.close)
            self._connection = connection
        return self._connection


def _made(table: TableForm) -> str:
    """The statements that make a table, unless it is there."""
    made = f"CREATE TABLE IF NOT EXISTS {table.name} ({table.columns}) WITHOUT ROWID;\n"
    if table.age:
        made += f"CREATE INDEX IF NOT EXISTS age ON {table.name} ({table.age});\n"
    return made
