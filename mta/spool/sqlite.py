"""The spool of one running process: SQLite, files for large content, group commit, leases.

``docs/spool.rst`` has what is always true.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mta.interfaces import IAttempts, ICommitMeter, IQueue, ISpool, ISpoolListener
from mta.mail import Envelope
from mta.queued import IDraft, Message, Notice, Settlement, State
from mta.session import Origin
from mta.spool import clock, leases, owner_rows, owners, queue_id, rows
from mta.spool.attempts import AttemptNotes
from mta.spool.commits import Commits
from mta.spool.committer import Committer
from mta.spool.content import Draft, FileContent, Incoming
from mta.spool.database import (
    ReadConnection,
    SpoolDamaged,
    as_oserror,
    open_database,
    transaction,
)
from mta.spool.folder import Folder
from mta.spool.heartbeat import Heartbeat
from mta.spool.jobs import ICommitter, acting
from mta.spool.leasing import Leasing
from mta.spool.loading import Loaded
from mta.spool.postponing import postpone
from mta.spool.sweeping import FileSweeper
from mta.spool.take_over import TakeOver, log_damaged
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
        """`reactor`: IReactorTime, IReactorFromThreads, IReactorFDSet; `now`: seconds since the
        epoch; `uptime`: seconds of a clock that nobody sets, the reactor's where it is not given.
        """
        self._listener = listener
        self._committer = committer or Committer(Folder(folder), reactor, meter)
        self._folder = self._committer.folder
        self._reactor = reactor
        self._pool = pool
        self._now = now
        self._ids = queue_id.QueueIds(now)
        self._clocks = clock.Clocks(now, uptime or reactor.seconds)
        self._heartbeat = Heartbeat(
            self._committer, reactor, self._clocks, self._beaten, self._lost, self._jumped
        )
        self._leases: dict[int, bool] = {}  # what we have leased: has it a file?
        self._unreleased: dict[int, float] = {}  # what could not be given back yet, and when due
        self._suspects: set[int] = set()  # what is tried alone, see `leases.suspect`

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
        self._leasing = Leasing(self._folder, self._owner.number, self._reader, self._in_thread)
        self._commits = Commits(
            self._committer,
            self._owner.number,
            self._leasing,
            self._in_thread,
            self._now,
            self._leases,
            self.release,
        )
        self._pipe = WakeupPipe(self._owner.wakeup_pipe, self._reactor, self._listener)
        self._sweeper = FileSweeper(self._committer, self._reader, self._in_thread, self._now)
        self._taking_over = TakeOver(
            self._committer, self._reader, self._in_thread, self._now, self._sweeper
        )
        self._committer.start(self._owner.number)
        self._heartbeat.start(self._owner.number)
        self._maturing = self._reactor.callLater(owner_rows.SUSPECT_DELAY, self._mature)

    def _mature(self) -> None:
        """This process has lived for a while: what others died on may be tried."""
        self._leasing.tries_suspects = True
        self._listener.wake()

    @property
    def trouble(self) -> str:
        """What keeps us from taking mail, in one line; empty: nothing."""
        return self._heartbeat.trouble

    @property
    def has_ended(self) -> bool:
        """Whether nothing can be committed any more, until the process is started anew."""
        return self._committer.has_ended

    async def beat(self) -> None:
        """Commit something, to see whether that can be done.  Raises OSError."""
        await self._heartbeat.beat()

    @property
    def reserve(self) -> int:
        """Octets of the disk that new mail leaves free; may be set at any time."""
        return self._folder.reserve

    @reserve.setter
    def reserve(self, octets: int) -> None:
        self._folder.reserve = octets

    def _lost(self) -> None:
        """Others believed us dead: what they took is theirs."""
        self.log.warn("this process stood still, and others may have taken its mail")
        self._listener.recall()

    def _jumped(self, seconds: float) -> None:
        self.log.warn("the clock jumped by {seconds:.0f} s", seconds=seconds)
        self._listener.wake()

    async def stop(self) -> None:
        """Commit what waits, leave what is leased to the next owner, and close the spool."""
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
        """Free what dead owners had leased, and remove their files; returns how many messages.

        Call it at start and every few seconds.  Raises OSError; try again later.
        """
        self._pipe.renew()
        return await self._taking_over.look(self._owner.number)

    def census(self) -> dict[str, tuple[int, float]]:
        """By state: how many messages, and when the oldest came, in seconds since the epoch.

        Blocks, and reads the whole queue.  Raises OSError, at once where another look goes on.
        """
        return self._watcher.call(rows.census)

    # --- ISpool --------------------------------------------------------------------

    def draft(self) -> Draft:
        """Somewhere to write content that arrives."""
        return self._commits.draft(self._ids.next())

    async def commit(
        self, draft: IDraft, envelope: Envelope, header: bytes, origin: Origin, hold: str = ""
    ) -> Message:
        """Take responsibility for a message.  Raises SpoolFull or OSError."""
        assert isinstance(draft, Draft)
        incoming = Incoming(draft, envelope, header, origin, hold)
        (message,) = await self._commits.commit([incoming])
        return message

    # --- IQueue --------------------------------------------------------------------

    async def lease_due(self, limit: int) -> Sequence[Message]:
        """Lease what is due.  Raises OSError."""
        return await self._lease(
            partial(
                leases.due,
                now=self._now(),
                limit=limit,
                unreadable=self._leasing.unreadable,
                suspects=self._leasing.tries_suspects,
            )
        )

    async def lease_held(
        self, peer: str, domains: Collection[str], limit: int
    ) -> Sequence[Message]:
        """Lease what waits for a peer.  Raises OSError."""
        return await self._lease(partial(leases.held, peer=peer, domains=domains, limit=limit))

    async def count_held(self, peer: str, domains: Collection[str], limit: int) -> int:
        """How many messages wait for a peer.  Raises OSError."""
        count: int = await self._in_thread(
            self._reader.call, leases.count_held, peer, domains, limit
        )
        return count

    async def next_due(self) -> float | None:
        """When the next message is due.  Raises OSError."""
        due: float | None = await self._in_thread(
            self._reader.call, partial(leases.next_due, suspects=self._leasing.tries_suspects)
        )
        return due

    async def settle(self, settlement: Settlement) -> Sequence[Message]:
        """Record an attempt.  Raises SpoolFull or OSError; then we keep the lease."""
        number = queue_id.decode(settlement.id)
        if all(progress.state is State.DONE for progress in settlement.progress):
            notices = await self._commits.commit(
                await self._incoming(settlement.notices), removals=[number]
            )
            await self._gone([number])
        else:
            notices = await self._commits.commit(
                await self._incoming(settlement.notices), updates=[settlement]
            )
            self._leases.pop(number, None)
            self._suspect_tried(number)
            if _is_for_others(settlement, self._now()):
                wake_processes(self._folder, except_for=self._owner.wakeup_pipe)
        return notices

    async def remove(self, ids: Collection[str], delay: float) -> None:
        """Remove messages that are done.  Raises SpoolFull or OSError; then we keep the leases."""
        numbers = [*map(queue_id.decode, ids)]
        await self._committer.remove(numbers, delay)
        await self._gone(numbers)

    async def lease(self, ids: Collection[str]) -> Sequence[Message]:
        """Lease these messages, as far as they are free.  Raises OSError."""
        return await self._lease(partial(leases.free, numbers=[*map(queue_id.decode, ids)]))

    async def recalled(self, ids: Collection[str]) -> Collection[str]:
        """What a person removed or put on hold.  Raises OSError."""
        numbers: list[int] = await self._in_thread(
            self._reader.call, leases.recalled, [*map(queue_id.decode, ids)], self._owner.number
        )
        return [*map(queue_id.encode, numbers)]

    async def postpone(
        self, dues: Mapping[str, float], warn_after: float, give_up_after: float
    ) -> Mapping[str, int]:
        """Put off what waits for hops that are down.  Raises OSError."""
        put_off: Mapping[str, int] = await self._act(
            postpone,
            now=self._now(),
            dues=dues,
            warn_after=warn_after,
            give_up_after=give_up_after,
        )
        return put_off

    async def release(self, dues: Mapping[str, float]) -> None:
        """Give up leases.  What can't be recorded now is recorded with the next beat."""
        now = self._now()
        numbered = {queue_id.decode(text): max(due, now) for text, due in dues.items()}
        try:
            await self._act(leases.release, dues=[*numbered.items()], owner=self._owner.number)
        except OSError:  # the committer has logged it
            self._unreleased |= numbered
            return
        for number in numbered:
            self._leases.pop(number, None)
            self._suspect_tried(number)
        if any(due <= now for due in numbered.values()):
            wake_processes(self._folder, except_for=self._owner.wakeup_pipe)

    def _beaten(self) -> None:
        """There was a commit: what could not be recorded before can be now."""
        unreleased, self._unreleased = self._unreleased, {}
        if unreleased:
            dues = {queue_id.encode(number): due for number, due in unreleased.items()}
            Deferred.fromCoroutine(self.release(dues)).addBoth(lambda _: self._listener.wake())

    # --- IAttempts -----------------------------------------------------------------

    def begin_attempt(self, id: str) -> bool:
        """Note that an attempt begins; False where the message may not be ours any more."""
        if not self._heartbeat.is_sure:
            self._heartbeat.hurry()
            return False
        self._attempts.begin(queue_id.decode(id))
        return True

    def end_attempt(self, id: str) -> None:
        """Note that an attempt is over."""
        self._attempts.end(queue_id.decode(id))

    # --- the rest ---------------------------------------------------------------------

    async def _incoming(self, notices: Sequence[Notice]) -> list[Incoming]:
        incoming = []
        for notice in notices:
            draft = self.draft()
            await draft.write(notice.body)
            incoming.append(Incoming(draft, notice.envelope, notice.header, notice.origin))
        return incoming

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._pool, function, *args)

    def _act(self, action: Callable[..., Any], **arguments: Any) -> Deferred[Any]:
        return self._committer.submit(acting(action, **arguments))

    # --- leases ----------------------------------------------------------------------

    async def _lease(self, choose: Callable[[Connection], list[int]]) -> Sequence[Message]:
        try:
            loaded: Loaded = await self._act(self._leasing.lease, choose=choose)
        except SpoolDamaged:
            loaded = await self._act(self._leasing.lease_readable, choose=choose)
        for message in loaded.messages:
            self._leases[queue_id.decode(message.id)] = isinstance(message.content, FileContent)
        self._suspects |= loaded.suspects
        log_damaged(self.log, loaded.damaged)
        return loaded.messages

    async def _gone(self, numbers: Sequence[int]) -> None:
        """Remove the files of messages that are removed."""
        for number in numbers:
            self._suspect_tried(number)
        if [number for number in numbers if self._leases.pop(number, False)]:
            await self._sweeper.sweep()

    def _suspect_tried(self, number: int) -> None:
        """Where a message was tried alone, another one may be now."""
        if number in self._suspects:
            self._suspects.discard(number)
            self._listener.wake()
            wake_processes(self._folder, except_for=self._owner.wakeup_pipe)


def _is_for_others(settlement: Settlement, now: float) -> bool:
    """Whether another process may have something to do with it at once."""
    return settlement.due <= now or any(
        progress.state is State.HELD for progress in settlement.progress
    )
