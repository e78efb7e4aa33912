"""The spool of one running process: SQLite, and files for large content.

``docs/spool.rst`` has what is always true.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mta.interfaces import IAttempts, ICommitMeter, IQueue, ISpool, ISpoolListener
from mta.mail import Envelope
from mta.queued import IDraft, Message, Settlement
from mta.session import Origin
from mta.spool import clock, leases, owner_rows, owners, queue_id, rows
from mta.spool.attempts import AttemptNotes
from mta.spool.commits import Commits
from mta.spool.committer import Committer
from mta.spool.content import ContentSource
from mta.spool.database import ReadConnection, as_oserror, open_database, transaction
from mta.spool.drafts import Draft, Incoming
from mta.spool.folder import Folder
from mta.spool.heartbeat import Heartbeat
from mta.spool.jobs import ICommitter, acting
from mta.spool.leasing import Leasing
from mta.spool.postponing import postpone
from mta.spool.sweeping import FileSweeper
from mta.spool.take_over import TakeOver
from mta.spool.wakeup import wake_processes
from mta.spool.wakeup_pipe import WakeupPipe


@implementer(ISpool, IQueue, IAttempts)
class SqliteSpool:
    """The spool as a running process uses it.  `start` before use, `stop` after."""

    log: ClassVar[Logger] = Logger()

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
        """`reactor`: IReactorTime, IReactorFromThreads and IReactorFDSet.

        `now`: seconds since the epoch; `uptime`: seconds of a clock that is never set, the
        reactor's where it is not given.
        """
        self._listener = listener
        self._committer = committer or Committer(Folder(folder), reactor, meter)
        self._folder = self._committer.folder
        self._reactor = reactor
        self._pool = pool
        self._now = now
        self._ids = queue_id.QueueIds(now)
        self._clocks = clock.Clocks(now, uptime or reactor.seconds)

    def start(self) -> None:
        """Open the spool, making it if need be; call `take_over` next.

        Raises SpoolUnusable or OSError, in one line for people.
        """
        with closing(open_database(self._folder)) as connection:
            self._owner = owners.register(self._folder, self._ids)
            with as_oserror(self._folder), transaction(connection):
                owner_rows.register(connection, self._owner.number)
                owner_rows.set_clock(connection, self._clocks.read())
        self._attempts = AttemptNotes(self._owner.attempts)
        self._reader = ReadConnection(self._folder)
        self._watcher = ReadConnection(self._folder, waits=False)
        self._join()
        self._pipe = WakeupPipe(self._owner.wakeup_pipe, self._reactor, self._listener)
        self._committer.start(self._owner.number)
        self._heartbeat.start()
        self._maturing = self._reactor.callLater(owner_rows.SUSPECT_DELAY, self._mature)

    def _join(self) -> None:
        """Make the parts that work for our owner."""
        committer, owner, listener = self._committer, self._owner, self._listener
        source = ContentSource(self._folder, self._reader, self._in_thread)
        sweeper = FileSweeper(committer, self._reader, self._in_thread, self._now)
        self._leasing = Leasing(committer, owner, source, listener, sweeper, self._now)
        self._commits = Commits(
            committer, owner.number, self._leasing, source, self._ids, self._now
        )
        self._taking_over = TakeOver(committer, self._reader, self._in_thread, self._now, sweeper)
        self._heartbeat = Heartbeat(
            committer, owner.number, self._leasing, listener, self._clocks, self._reactor
        )

    def _mature(self) -> None:
        """Try messages that others died on, now that we have lived."""
        self._leasing.tries_suspects = True
        self._listener.wake()

    async def stop(self) -> None:
        """Commit what waits, leave leases to the next owner, and close."""
        self._heartbeat.stop()
        if self._maturing.active():
            self._maturing.cancel()
        self._pipe.close()
        try:
            await self._taking_over.take_over_from(self._owner, died=False)
        except OSError as error:  # another process takes over
            self.log.warn("spool: {error}", error=str(error))
            self._owner.close()
        await self._committer.stop()
        self._attempts.close()
        self._reader.close()
        self._watcher.close()
        wake_processes(self._folder)

    async def take_over(self) -> int:
        """Free what dead owners had leased, and remove their files.

        Returns how many messages it were.  Call it at start and every few seconds.  Raises OSError;
        try again later.
        """
        self._pipe.renew()
        return await self._taking_over.look(self._owner.number)

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._pool, function, *args)

    # --- for the service ---------------------------------------------------------------

    @property
    def failure(self) -> str:
        """The reason why no mail can be taken; empty: it can."""
        return self._heartbeat.failure

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing can be committed until the process is restarted."""
        return self._committer.has_ended

    async def beat(self) -> None:
        """Commit something, to see whether that can be done.  Raises OSError."""
        await self._heartbeat.beat()

    @property
    def reserve(self) -> int:
        """The octets of the disk that new mail leaves free.

        May be set at any time.
        """
        return self._folder.reserve

    @reserve.setter
    def reserve(self, octets: int) -> None:
        self._folder.reserve = octets

    def counts_by_state(self) -> dict[str, tuple[int, float]]:
        """The number of messages in each state, and when the oldest came.

        In seconds since the epoch.  Blocks, and reads the whole queue.  Raises OSError, at once
        where it is being counted already.
        """
        return self._watcher.call(rows.counts_by_state)

    # --- ISpool --------------------------------------------------------------------

    def draft(self) -> Draft:
        """See `ISpool.draft`."""
        return self._commits.draft()

    async def commit(
        self, draft: IDraft, envelope: Envelope, header: bytes, origin: Origin, hold: str = ""
    ) -> Message:
        """See `ISpool.commit`."""
        assert isinstance(draft, Draft)
        incoming = Incoming(draft, envelope, header, origin, hold)
        (message,) = await self._commits.commit([incoming])
        return message

    # --- IQueue --------------------------------------------------------------------

    async def lease_due(self, limit: int) -> Sequence[Message]:
        """See `ILeases.lease_due`."""
        return await self._leasing.lease_due(limit)

    async def lease(self, ids: Collection[str]) -> Sequence[Message]:
        """See `ILeases.lease`."""
        numbers = [*map(queue_id.decode, ids)]
        return await self._leasing.lease(partial(leases.free, numbers=numbers))

    async def next_due(self) -> float | None:
        """See `ILeases.next_due`."""
        query = partial(leases.next_due, suspects=self._leasing.tries_suspects)
        due: float | None = await self._in_thread(self._reader.call, query)
        return due

    async def release(self, dues: Mapping[str, float]) -> None:
        """See `ILeases.release`."""
        await self._leasing.release(dues)

    async def lease_held(
        self, peer: str, domains: Collection[str], limit: int
    ) -> Sequence[Message]:
        """See `IHeldLeases.lease_held`."""
        choose = partial(leases.held, peer=peer, domains=domains, limit=limit)
        return await self._leasing.lease(choose)

    async def count_held(self, peer: str, domains: Collection[str], limit: int) -> int:
        """See `IHeldLeases.count_held`."""
        query = partial(leases.count_held, peer=peer, domains=domains, limit=limit)
        count: int = await self._in_thread(self._reader.call, query)
        return count

    async def settle(self, settlement: Settlement) -> Sequence[Message]:
        """See `IAttemptRecords.settle`."""
        return await self._commits.settle(settlement)

    async def remove(self, ids: Collection[str], delay: float) -> None:
        """See `IAttemptRecords.remove`."""
        await self._commits.remove(ids, delay)

    async def recalled(self, ids: Collection[str]) -> Collection[str]:
        """See `IAttemptRecords.recalled`."""
        numbers: list[int] = [*map(queue_id.decode, ids)]
        query = partial(leases.recalled, numbers=numbers, owner=self._owner.number)
        return [*map(queue_id.encode, await self._in_thread(self._reader.call, query))]

    async def postpone(
        self, dues: Mapping[str, float], warn_after: float, give_up_after: float
    ) -> Mapping[str, int]:
        """See `IAttemptRecords.postpone`."""
        limits = {"warn_after": warn_after, "give_up_after": give_up_after}
        job = acting(postpone, now=self._now(), dues=dues, **limits)
        counts: Mapping[str, int] = await self._committer.submit(job)
        return counts

    # --- IAttempts -----------------------------------------------------------------

    def begin_attempt(self, id: str) -> bool:
        """See `IAttempts.begin_attempt`."""
        if not self._heartbeat.is_sure:
            self._heartbeat.hurry()
            return False
        self._attempts.begin(queue_id.decode(id))
        return True

    def end_attempt(self, id: str) -> None:
        """See `IAttempts.end_attempt`."""
        self._attempts.end(queue_id.decode(id))
