"""A connection that reads the spool's database, for several threads."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from mta.spool.database import as_oserror, open_database
from mta.spool.folder import Folder
from mta.spool.mending import IndexMender

P = ParamSpec("P")
T = TypeVar("T")


class ReadConnection:
    """One connection for reading, which one thread uses at a time.

    `waits`: False where a thread that finds it in use gets an OSError at once, so that none
    waits for a read that takes long.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        waits: bool = True,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        """Open the database, where no `connection` is given.  Raises OSError."""
        self._folder = folder
        self._lock = threading.Lock()
        self._waits = waits
        self._connection = connection or open_database(folder)
        self._mender = IndexMender(folder)

    def call(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a function with the connection.  Raises OSError for the database's errors."""
        if not self._lock.acquire(blocking=self._waits):
            raise BlockingIOError(errno.EAGAIN, "the queue is being read already")
        try:
            with as_oserror(self._folder):
                return self._mender.call(function, self._connection, *args, **kwargs)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Wait for the thread that reads now, and close the connection."""
        with self._lock:
            self._connection.close()
