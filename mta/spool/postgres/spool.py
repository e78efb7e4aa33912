"""The spool of one running process: PostgreSQL, which several nodes share.

``docs/spool.rst`` has what is always true.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.python.threadpool import ThreadPool

from mta.interfaces import ICommitMeter, ISpoolListener
from mta.limited_log import LimitedLog
from mta.queued import Message, Settlement
from mta.spool import owners
from mta.spool.attempts import AttemptNotes
from mta.spool.clock import TOLERANCE
from mta.spool.commits import Commits
from mta.spool.committer import Committer
from mta.spool.database import SpoolAway
from mta.spool.drafts import Draft
from mta.spool.folder import Folder
from mta.spool.heartbeat import Heartbeat, Pulse
from mta.spool.jobs import acting
from mta.spool.leasing import Leasing
from mta.spool.postgres import dialling, owner_rows, schema
from mta.spool.postgres.claims import PostgresClaims
from mta.spool.postgres.content import ChunkedDrafts, PostgresContent, Uploads
from mta.spool.postgres.cursor import Cursors
from mta.spool.postgres.database_clock import DatabaseClock
from mta.spool.postgres.journal import OutcomeJournal
from mta.spool.postgres.owner_rows import OwnerName
from mta.spool.postgres.reading import PostgresReading
from mta.spool.postgres.server import Connection, Server, Session, transaction
from mta.spool.postgres.take_over import PostgresTakeOver
from mta.spool.postgres.wakeups import Wakeups
from mta.spool.postgres.writer import PostgresWriter
from mta.spool.process_spool import ProcessSpool
from mta.spool.wakeup_pipe import WakeupPipe

MAX_SURE = 30.0  # seconds after a beat in which our leases are ours: half of an owner's lifetime


class PostgresSpool(ProcessSpool):
    """The spool as a running process uses it.  `start` before use, `stop` after."""

    def __init__(
        self,
        url: str,
        folder: Path,
        reactor: Any,
        pool: ThreadPool,
        listener: ISpoolListener,
        *,
        node: str,
        now: Callable[[], float] | None = None,
        uptime: Callable[[], float] | None = None,
        meter: ICommitMeter | None = None,
    ) -> None:
        """`folder`: what this node keeps on its own disk.  Raises SpoolUnusable.

        `now`: seconds since the epoch, the database's where it is not given.  `meter` hears of each
        commit; for the others see `ProcessSpool`.
        """
        self._server = Server(url)
        clock = self._database_clock = DatabaseClock(uptime or reactor.seconds, now)
        self._limited = LimitedLog(self.log)
        self._writer = PostgresWriter(self._server, node, clock)
        committer = Committer(Folder(folder), reactor, meter, self._writer)
        super().__init__(reactor, pool, listener, committer, now=clock, uptime=uptime)
        self._node = node

    def start(self) -> None:
        """See `ProcessSpool.start`.

        Where the database is away it begins all the same, and mail is refused until it is there.
        Where it refuses us, nothing is made in the folder.
        """
        with (
            suppress(SpoolAway),
            self._server.connect() as connection,
            self._server.as_oserror(),
        ):
            schema.prepare(self._server, connection)
            with transaction(connection):
                self._follow_clock(connection)
        self._folder.make()
        self._owner = owners.register(self._folder, self._ids)
        self._name = OwnerName(self._owner.number, self._node)
        self._attempts = AttemptNotes(self._owner.attempts)
        self._join()
        self._pipe = WakeupPipe(self._owner.wakeup_pipe, self._reactor, self._listener)
        self._wakeups.start()
        self._begin(self._owner.number)
        if self._writer.is_away:
            self._heartbeat.hurry()

    def _join(self) -> None:
        """Make the parts that work for our owner."""
        committer, server, number = self._committer, self._server, self._owner.number
        cursors = Cursors(self._reactor)
        reading = PostgresReading(server, number, self._in_thread, cursors.due)
        source = PostgresContent(reading.session, self._in_thread)
        # A commit that is durable makes those before it durable, too.
        self._uploading = Session(server, setting="SET synchronous_commit = off")
        uploads = Uploads(self._uploading, number)
        drafts = ChunkedDrafts(self._folder, source, uploads)
        self._wakeups = Wakeups(server, self._reactor, number, self._listener)
        self._reading, self._session = reading, reading.session
        claims = PostgresClaims(committer, number, source, cursors)
        self._leasing = Leasing(claims, self._listener, self._wakeups, self.now)
        self._commits = Commits(
            committer, number, self._leasing, source, drafts, reading, self._ids, self.now
        )
        self._journal = OutcomeJournal(self._owner.outcomes, self._in_thread, self._ids, self.now)
        self._taking_over = PostgresTakeOver(committer, self._in_thread, self.now, number)
        self._heartbeat = Heartbeat(
            committer,
            acting(self._beat_in),
            self._leasing,
            self._listener,
            self._clocks,
            self._reactor,
            MAX_SURE,
        )

    async def peers_to_dial(self, peers: Collection[str]) -> Collection[str]:
        """See `ProcessSpool.peers_to_dial`."""
        call, number = self._session.call, self._owner.number
        found: Collection[str] = await self._in_thread(call, dialling.have, peers, number)
        return found

    async def _leave(self) -> None:
        """See `ProcessSpool._leave`."""
        await self._taking_over.leave(self._owner)

    async def _end(self) -> None:
        """See `ProcessSpool._end`."""
        self._wakeups.wake_others()
        await self._in_thread(self._close)

    def _close(self) -> None:
        self._wakeups.stop()
        self._reading.close()
        self._uploading.close()

    async def take_over(self) -> int:
        """See `ProcessSpool.take_over`."""
        self._pipe.renew()
        count = await self._taking_over.look()
        self._listener.wake()  # what others released, where nothing told us
        return count

    async def settle(self, settlement: Settlement) -> Sequence[Message]:
        """See `IAttemptRecords.settle`; what can't be recorded is noted on this node."""
        try:
            notices = await super().settle(settlement)
        except OSError:
            await self._journal.note(settlement)
            raise
        await self._journal.recorded([settlement.id])
        return notices

    async def remove(self, ids: Collection[str], delay: float) -> None:
        """See `IAttemptRecords.remove`; what can't be recorded is noted on this node."""
        try:
            await super().remove(ids, delay)
        except OSError:
            await self._journal.note_delivered(ids)
            raise
        await self._journal.recorded(ids)

    def draft(self) -> Draft:
        """See `ISpool.draft`."""
        if self._writer.is_away:
            self._heartbeat.hurry()
            raise self._server.away("new mail is refused until it can")
        return super().draft()

    def _beat_in(self, connection: Connection) -> Pulse:
        """Beat, in the committer's thread."""
        jumped = self._follow_clock(connection, self._name.number)
        is_known = owner_rows.beat(connection, self._name)
        if not is_known:  # the tables may have been upgraded by those that live
            schema.require_usable(self._server, connection)
        return Pulse(is_known, jumped, self._folder.has_room())

    def _follow_clock(self, connection: Connection, owner: int = 0) -> float:
        """See `DatabaseClock.follow`."""
        jumped = self._database_clock.follow(connection, owner)
        ahead = self._database_clock.node_ahead
        if abs(ahead) > TOLERANCE:
            self._limited.warn(
                "clock",
                "the clock of this node is {seconds:.0f} s ahead of the database's, by which mail"
                " is tried: set the one that is wrong",
                seconds=ahead,
            )
        return jumped
