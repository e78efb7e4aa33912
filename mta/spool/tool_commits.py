"""Commits of programs without a reactor, and what they tell the servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from sqlite3 import Connection
from typing import Concatenate, ParamSpec, TypeVar

from mta.files import sync
from mta.queued import SpoolFull
from mta.spool import owner_rows, owners, rows
from mta.spool.database import as_oserror, commit_lock, open_database, transaction
from mta.spool.folder import Folder
from mta.spool.mending import IndexMender
from mta.spool.wakeup import Signal, ToolWaker, wake_processes

P = ParamSpec("P")
T = TypeVar("T")

_MAX_REST = 0.5  # seconds: a person waits for the command
_BATCH_SIZE = 500  # files forgotten in one commit: others want to commit, too
_ALL = -1  # as a LIMIT


class ToolCommits(ToolWaker):
    """The connection of one tool.

    Everything blocks, and raises OSError where the spool fails.  `now`: seconds since the epoch.
    """

    def __init__(self, folder: Folder, now: Callable[[], float]) -> None:
        """Open the spool, making it if need be.  Raises SpoolUnusable or OSError."""
        self.folder = folder
        self.now = now
        self.connection = open_database(folder)
        self._mender = IndexMender(folder)
        super().__init__()

    def close(self) -> None:
        """Close the spool."""
        self.connection.close()

    def commit(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do all of it or nothing.  Raises SpoolFull or OSError."""
        with as_oserror(self.folder):
            return self._mender.call(lambda: self._commit(work, *args, **kwargs))

    def _commit(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with commit_lock(self.folder), transaction(self.connection):
            return work(self.connection, *args, **kwargs)

    def commit_anyway(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do it even on a full disk, instead of the ballast."""
        try:
            return self.commit(work, *args, **kwargs)
        except SpoolFull:
            if not self.folder.drop_ballast():
                raise
        return self.commit_anyway(work, *args, **kwargs)

    def take_over(self) -> None:
        """Free what dead owners had leased.  No server may be up to do it."""
        for owner in owners.dead_owners(self.folder, ours=0):
            incoming = list(self.folder.incoming_of(owner.number))
            now = self.now()
            self.commit_anyway(owner_rows.free_leased, owner.number, now, incoming)
            self.commit_anyway(owner_rows.make_released_due, owner.number, now, _ALL)
            owner.remove()

    def sweep(self) -> None:
        """Remove content files whose messages are gone."""
        with as_oserror(self.folder):
            while numbers := rows.leftovers(self.connection, _BATCH_SIZE):
                for number in numbers:
                    self.folder.content(number).unlink(missing_ok=True)
                sync(self.folder.contents)  # or a loss of power brings back what is forgotten
                self.commit_anyway(rows.forget_leftovers, numbers)

    # --- the servers -------------------------------------------------------------------

    def send(self, signal: Signal) -> None:
        """See `ToolWaker.send`."""
        wake_processes(self.folder, signal)

    @contextmanager
    def in_portions(self) -> Iterator[Callable[[], None]]:
        """Wake the servers seldom during many changes, and at the end.

        Gives a function to be called between portions of them, which leaves half of the time to
        others that want to commit.
        """
        began = time.monotonic()

        def rest() -> None:
            nonlocal began
            time.sleep(min(time.monotonic() - began, _MAX_REST))
            began = time.monotonic()

        with self.seldom():
            yield rest
