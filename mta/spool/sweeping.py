"""Removes files from the spool that no message refers to any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from twisted.logger import Logger
from zope.interface import implementer

from mta.files import sync
from mta.limited_log import LimitedLog
from mta.spool import owners, queue_id, rows
from mta.spool.content import InThread
from mta.spool.folder import MIN_UNKNOWN_AGE
from mta.spool.interfaces import ISweeper
from mta.spool.jobs import ICommitter, acting
from mta.spool.read_connection import ReadConnection

_BATCH_SIZE = 1000  # files removed at once


@implementer(ISweeper)
class FileSweeper:
    """Removes content of messages that are gone, and files without any."""

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        committer: ICommitter,
        reader: ReadConnection,
        in_thread: InThread,
        now: Callable[[], float],
    ) -> None:
        self._folder = committer.folder
        self._committer = committer
        self._reader = reader
        self._in_thread = in_thread
        self._now = now
        self._limited = LimitedLog(self.log)
        self._unremovable: set[int] = set()  # leftovers

    async def sweep(self) -> None:
        """Remove content files whose messages are gone.

        What can't be removed stays listed as a leftover.
        """
        try:
            query = partial(rows.leftovers, but=self._unremovable)
            numbers = await self._in_thread(self._reader.call, query, _BATCH_SIZE)
            if numbers:
                removed = await self._in_thread(self._unlink, numbers)
                await self._committer.submit(acting(rows.forget_leftovers, numbers=removed))
        except OSError as error:
            self._limited.warn("leftovers", "spool: {error}", error=str(error))

    async def sweep_unknown(self) -> None:
        """Remove old files that no message, draft or process refers to.

        What could not be removed before is tried again at the next sweep.
        """
        try:
            numbers = await self._in_thread(self._unknown)
            for number in await self._in_thread(self._unlink, numbers):
                self.log.warn(
                    "{queue_id}: its content belonged to no message, and is removed",
                    queue_id=queue_id.encode(number),
                )
            await self._in_thread(self._remove_abandoned)
        except OSError as error:
            self._limited.warn("unknown", "spool: {error}", error=str(error))
        self._unremovable.clear()

    # --- in threads --------------------------------------------------------------------

    def _unlink(self, numbers: Sequence[int]) -> list[int]:
        removed = []
        for number in numbers:
            try:
                self._folder.content(number).unlink(missing_ok=True)
                removed.append(number)
            except OSError as error:
                self._unremovable.add(number)
                self._limited.warn("unlink", "spool: can't remove {error}", error=str(error))
        if removed:
            sync(self._folder.contents)  # or a loss of power brings back what is forgotten
        return removed

    def _unknown(self) -> list[int]:
        """The ids of content files without a message."""
        # In this order: a draft keeps its name in `incoming` until its message has a row.
        complete = self._folder.complete()
        old = [number for number in complete if self._is_old(self._folder.content(number))]
        return self._reader.call(rows.unknown, old)[:_BATCH_SIZE] if old else []

    def _remove_abandoned(self) -> None:
        """Remove files of owners that have no lock any more."""
        arriving = list(self._folder.incoming_files())
        known = owners.known_owners(self._folder)
        for owner, number in arriving:
            path = self._folder.incoming(owner, number)
            if owner not in known and self._is_old(path):
                path.unlink(missing_ok=True)
        for path in owners.without_lock(self._folder):
            if self._is_old(path):
                path.unlink(missing_ok=True)

    def _is_old(self, path: Path) -> bool:
        try:
            return self._now() - path.stat().st_mtime > MIN_UNKNOWN_AGE
        except FileNotFoundError:
            return False
