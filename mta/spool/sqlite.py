"""The spool of one running process: SQLite, and files for large content.

``docs/spool.rst`` has what is always true.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from twisted.python.threadpool import ThreadPool

from mta.interfaces import ICommitMeter, ISpoolListener
from mta.spool import owner_rows, owners
from mta.spool.admission import Admission
from mta.spool.attempts import AttemptNotes
from mta.spool.claims import Claims
from mta.spool.clock import Clocks
from mta.spool.commits import Commits
from mta.spool.committer import Committer
from mta.spool.content import ContentSource
from mta.spool.database import as_oserror, open_database, spare, transaction
from mta.spool.drafts import Drafts
from mta.spool.folder import Folder
from mta.spool.heartbeat import Heartbeat, Pulse
from mta.spool.holds import StandingHolds
from mta.spool.jobs import ICommitter, acting
from mta.spool.leasing import Leasing
from mta.spool.mending import IndexMender
from mta.spool.process_spool import ProcessSpool
from mta.spool.reading import Reading
from mta.spool.sweeping import FileSweeper
from mta.spool.take_over import TakeOver
from mta.spool.wakeup import Waker, wake_processes
from mta.spool.wakeup_pipe import WakeupPipe


class SqliteSpool(ProcessSpool):
    """The spool as a running process uses it.  `start` before use, `stop` after."""

    def __init__(
        self,
        folder: Path,
        reactor: Any,
        pool: ThreadPool,
        listener: ISpoolListener,
        *,
        now: Callable[[], float] = time.time,
        uptime: Callable[[], float] | None = None,
        committer: ICommitter | None = None,
        meter: ICommitMeter | None = None,
    ) -> None:
        """`meter` hears of each commit; for the others see `ProcessSpool`."""
        committer = committer or Committer(Folder(folder), reactor, meter)
        super().__init__(reactor, pool, listener, committer, now=now, uptime=uptime)

    def start(self) -> None:
        """See `ProcessSpool.start`."""
        with closing(open_database(self._folder)) as connection:
            self._owner = owners.register(self._folder, self._ids)
            with as_oserror(self._folder):
                IndexMender(self._folder).call(self._register, connection)
        self._attempts = AttemptNotes(self._owner.attempts)
        self._join()
        self._pipe = WakeupPipe(self._owner.wakeup_pipe, self._reactor, self._listener)
        self._begin(self._owner.number)

    def _register(self, connection: Connection) -> None:
        with transaction(connection):
            owner_rows.register(connection, self._owner.number)
            owner_rows.set_clock(connection, self._clocks.read())

    def _join(self) -> None:
        """Make the parts that work for our owner."""
        committer, folder, owner = self._committer, self._folder, self._owner
        reading = Reading(folder, owner.number, self._in_thread)
        reader = reading.connection
        source = ContentSource(folder, reader, self._in_thread)
        sweeper = FileSweeper(committer, reader, self._in_thread, self.now)
        claims = Claims(committer, owner.number, source)
        waker = Waker(folder, owner.wakeup_pipe)
        drafts = Drafts(folder, owner.number, self._in_thread)
        pulse = acting(_pulse, owner=owner.number, clocks=self._clocks, folder=folder)
        self._reading = reading
        self._leasing = Leasing(claims, self._listener, waker, self.now, sweeper)
        self._commits = Commits(
            committer,
            owner.number,
            self._leasing,
            source,
            drafts,
            Admission(folder, StandingHolds(folder), self._in_thread),
            self._ids,
            self.now,
        )
        self._taking_over = TakeOver(committer, reader, self._in_thread, self.now, sweeper)
        self._heartbeat = Heartbeat(
            committer, pulse, self._leasing, self._listener, self._clocks, self._reactor
        )

    async def _leave(self) -> None:
        """See `ProcessSpool._leave`."""
        await self._taking_over.take_over_from(self._owner, died=False)

    async def _end(self) -> None:
        """See `ProcessSpool._end`."""
        self._reading.close()
        wake_processes(self._folder)

    async def take_over(self) -> int:
        """See `ProcessSpool.take_over`."""
        self._pipe.renew()
        return await self._taking_over.look(self._owner.number)


def _pulse(connection: Connection, owner: int, clocks: Clocks, folder: Folder) -> Pulse:
    """Beat in the database."""
    is_known = owner_rows.beat(connection, owner)
    if not is_known:
        owner_rows.register(connection, owner)
    jumped = owner_rows.set_clock(connection, clocks.read())
    return Pulse(is_known, jumped, folder.has_room(spare(connection)))
