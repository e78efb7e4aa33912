"""The spool of one running process: SQLite, files for large content, group commit, leases.

``docs/spool.rst`` has what is always true.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mta.interfaces import (
    IContent,
    IDraft,
    IQueue,
    ISpool,
    Message,
    Notice,
    Progress,
    Settlement,
    State,
)
from mta.mail import Envelope
from mta.spool import owners, queue_id, rows
from mta.spool.bell import Bell
from mta.spool.committer import Committer, Job
from mta.spool.content import Draft, FileContent, MemoryContent, RowContent
from mta.spool.database import Reader
from mta.spool.folder import Folder
from mta.spool.holds import StandingHolds
from mta.spool.postponing import postpone
from mta.spool.wakeup import NOW, RECALL, ring

_RENEWAL = rows.LEASE / 4  # seconds between renewals: three may fail
_SWEEP = 1000  # files removed, or messages brought back, at once


@implementer(ISpool, IQueue)
class SqliteSpool:
    """The spool as a running process uses it.  `start` before use, `stop` after."""

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        folder: Path,
        reactor: Any,
        pool: ThreadPool,
        now: Callable[[], float] = time.time,
        reserve: int = 0,
    ) -> None:
        """`reactor`: IReactorTime, IReactorFromThreads, IReactorFDSet; `now`: seconds since the
        epoch; `reserve`: octets of the disk that new mail leaves free.

        `on_wake` is called when another process made work for all, before it `on_retry` when a
        person wants mail tried now, and `on_recall` when one wants some of it kept or removed;
        `on_commit` in a thread with the number of jobs in each commit, and the seconds it took.
        """
        self.on_wake: Callable[[], None] = lambda: None
        self.on_retry: Callable[[], None] = lambda: None
        self.on_recall: Callable[[], None] = lambda: None
        self.on_commit: Callable[[int, float], None] = lambda jobs, seconds: None
        self._folder = Folder(folder, reserve)
        self._holds = StandingHolds(self._folder)
        self._reactor = reactor
        self._pool = pool
        self._now = now
        self._ids = queue_id.QueueIds(now)
        self._leases: dict[int, bool] = {}  # what we have leased: has it a file?
        self._open: set[int] = set()  # drafts whose messages may come to be committed
        self._renewal = LoopingCall(self._renew)
        self._renewal.clock = reactor

    @property
    def reserve(self) -> int:
        """Octets of the disk that new mail leaves free; may be set at any time."""
        return self._folder.reserve

    @reserve.setter
    def reserve(self, octets: int) -> None:
        self._folder.reserve = octets

    def start(self) -> None:
        """Open the spool, making it if need be; call `take_over` next.

        Raises SpoolDamaged or OSError, in one line for people.
        """
        self._committer = Committer(self._folder, self._reactor)
        self._committer.on_commit = lambda jobs, seconds: self.on_commit(jobs, seconds)
        self._reader = Reader(self._folder)
        self._owner = owners.register(self._folder, self._ids)
        self._bell = Bell(self._owner.bell, self._reactor, self._rung)
        self._committer.start(self._owner.number)
        self._renewal.start(_RENEWAL, now=False)

    def _rung(self, rings: bytes) -> None:
        if NOW in rings:
            self.on_retry()
        if RECALL in rings:
            self.on_recall()
        self.on_wake()

    async def stop(self) -> None:
        """Commit what waits, leave what is leased to the next owner, and close the spool."""
        self._renewal.stop()
        self._bell.close()
        try:
            await self._succeed(self._owner)
        except OSError as error:  # another process takes over
            self.log.warn("spool: {error}", error=str(error))
            self._owner.close()
        await self._committer.stop()
        self._reader.close()
        ring(self._folder)

    async def take_over(self) -> int:
        """Free what dead owners had leased, and remove their files; returns how many messages.

        Call it at start and every few seconds.  Raises OSError; try again later.
        """
        dead = await self._in_thread(list, owners.dead(self._folder, self._owner.number))
        try:
            freed = [await self._succeed(owner) for owner in dead]
        finally:
            for owner in dead:
                owner.close()
        await self._sweep()
        await self._in_thread(self._folder.take_ballast)
        return sum(freed)

    def census(self) -> dict[str, tuple[int, float]]:
        """By state: how many messages, and when the oldest came, in seconds since the epoch.

        Blocks, and reads the whole queue.  Raises OSError.
        """
        return self._reader.call(rows.census)

    # --- ISpool --------------------------------------------------------------------

    def draft(self) -> Draft:
        """Somewhere to write content that arrives."""
        number = self._ids.next()
        self._open.add(number)
        return Draft(number, self._folder, self._owner.number, self._in_thread, self._open.discard)

    async def commit(self, draft: IDraft, envelope: Envelope) -> Message:
        """Take responsibility for a message.  Raises SpoolFull or OSError."""
        assert isinstance(draft, Draft)
        (message,) = await self._commit([(draft, envelope)])
        return message

    # --- IQueue --------------------------------------------------------------------

    async def lease_due(self, limit: int) -> Sequence[Message]:
        """Lease what is due.  Raises OSError."""
        return await self._lease(
            partial(rows.due, owner=self._owner.number, now=self._now(), limit=limit)
        )

    async def lease_held(
        self, peer: str, domains: Collection[str], limit: int
    ) -> Sequence[Message]:
        """Lease what waits for a peer.  Raises OSError."""
        return await self._lease(partial(rows.held, peer=peer, domains=domains, limit=limit))

    async def count_held(self, peer: str, domains: Collection[str], most: int) -> int:
        """How many messages wait for a peer.  Raises OSError."""
        count: int = await self._in_thread(self._reader.call, rows.count_held, peer, domains, most)
        return count

    async def next_due(self) -> float | None:
        """When the next message is due.  Raises OSError."""
        due: float | None = await self._in_thread(
            self._reader.call, rows.next_due, self._owner.number
        )
        return due

    async def settle(self, settlement: Settlement) -> Sequence[Message]:
        """Record an attempt.  Raises SpoolFull or OSError; then we keep the lease."""
        number = queue_id.decode(settlement.id)
        if all(progress.state is State.DONE for progress in settlement.progress):
            notices = await self._commit(await self._drafts(settlement.notices), removals=[number])
            if self._leases.pop(number, False):
                await self._sweep()
        else:
            notices = await self._commit(
                await self._drafts(settlement.notices), updates=[settlement]
            )
            self._leases.pop(number, None)
            if _is_for_others(settlement, self._now()):
                ring(self._folder, self._owner.bell)
        return notices

    async def remove(self, ids: Collection[str], patience: float) -> None:
        """Remove messages that are done.  Raises SpoolFull or OSError; then we keep the leases."""
        numbers = [*map(queue_id.decode, ids)]
        await self._committer.remove(numbers, patience)
        if [number for number in numbers if self._leases.pop(number, False)]:
            await self._sweep()

    async def lease(self, ids: Collection[str]) -> Sequence[Message]:
        """Lease these messages, as far as they are free.  Raises OSError."""
        return await self._lease(partial(rows.free, numbers=[*map(queue_id.decode, ids)]))

    async def recalled(self, ids: Collection[str]) -> Collection[str]:
        """What a person removed or put on hold.  Raises OSError."""
        numbers: list[int] = await self._in_thread(
            self._reader.call, rows.recalled, [*map(queue_id.decode, ids)], self._owner.number
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
        """Give up leases.  Raises OSError; then we keep them."""
        now = self._now()
        numbered = [(queue_id.decode(text), max(due, now)) for text, due in dues.items()]
        await self._act(rows.release, dues=numbered, owner=self._owner.number)
        for number, _ in numbered:
            self._leases.pop(number, None)
        if any(due <= now for _, due in numbered):
            ring(self._folder, self._owner.bell)

    # --- committing ------------------------------------------------------------------

    async def _drafts(self, notices: Sequence[Notice]) -> list[tuple[Draft, Envelope]]:
        drafts = []
        for notice in notices:
            draft = self.draft()
            await draft.write(notice.content)
            drafts.append((draft, notice.envelope))
        return drafts

    async def _commit(
        self,
        drafts: Sequence[tuple[Draft, Envelope]],
        updates: Sequence[Settlement] = (),
        removals: Sequence[int] = (),
    ) -> Sequence[Message]:
        """Commit new messages, leased to us or on hold, and other changes.

        All or nothing is left.
        """
        try:
            arrivals = [await self._arrival(draft, envelope) for draft, envelope in drafts]
        except BaseException:
            _discard(drafts)
            raise
        self._open.difference_update(draft.number for draft, _ in drafts)
        job = Job(arrivals, updates, removals)
        try:
            if job.is_intake:
                await self._committer.submit_in_company(job, len(self._open))
            else:
                await self._committer.submit(job)
        except OSError:  # and nothing else: who is cancelled leaves a job that goes on
            _discard(drafts)
            raise
        for draft, _ in drafts:
            await draft.committed()
        return [
            self._taken_in(draft.id, arrival)
            for (draft, _), arrival in zip(drafts, arrivals, strict=True)
        ]

    async def _arrival(self, draft: Draft, envelope: Envelope) -> rows.Arrival:
        return rows.Arrival(
            data=await draft.finish(),
            number=draft.number,
            envelope=envelope,
            due=self._now() + rows.LEASE,
            owner=self._owner.number,
            size=draft.size,
            is_ascii=draft.is_ascii,
            on_hold=str(self._holds.which(envelope) or ""),
        )

    def _taken_in(self, name: str, arrival: rows.Arrival) -> Message:
        if not arrival.on_hold:
            self._leases[arrival.number] = arrival.data is None
        return Message(
            id=name,
            arrived=queue_id.arrival(arrival.number),
            envelope=arrival.envelope,
            content=self._content_of(arrival),
            progress=tuple(map(Progress, arrival.envelope.recipients)),
            on_hold=arrival.on_hold,
        )

    def _content_of(self, arrival: rows.Arrival) -> IContent:
        if arrival.data is not None:
            return MemoryContent(arrival.data, arrival.is_ascii)
        return self._content(
            rows.ContentKey(arrival.number, arrival.size, arrival.is_ascii, in_file=True)
        )

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._pool, function, *args)

    def _act(self, action: Callable[..., Any], **arguments: Any) -> Deferred[Any]:
        return self._committer.submit(Job(action=partial(action, **arguments)))

    # --- leases ----------------------------------------------------------------------

    async def _lease(self, choose: Callable[[Connection], list[int]]) -> Sequence[Message]:
        messages: list[Message] = await self._act(self._lease_chosen, choose=choose)
        for message in messages:
            self._leases[queue_id.decode(message.id)] = isinstance(message.content, FileContent)
        return messages

    def _lease_chosen(
        self, connection: Connection, choose: Callable[[Connection], list[int]]
    ) -> list[Message]:
        chosen = choose(connection)
        rows.lease(connection, chosen, self._owner.number, self._now() + rows.LEASE)
        return rows.load(connection, chosen, self._content)

    def _content(self, key: rows.ContentKey) -> IContent:
        if key.in_file:
            return FileContent(
                key.size, key.is_ascii, self._folder.content(key.number), self._in_thread
            )
        read = partial(self._in_thread, self._reader.call, rows.data, key.number)
        return RowContent(key.size, key.is_ascii, queue_id.encode(key.number), read)

    async def _renew(self) -> None:
        """Keep our leases.  What fails now is tried again long before they end."""
        if self._leases:
            try:
                await self._act(
                    rows.renew,
                    numbers=list(self._leases),
                    owner=self._owner.number,
                    end=self._now() + rows.LEASE,
                )
            except OSError as error:
                self.log.warn("spool: leases not renewed: {error}", error=str(error))

    # --- the dead, and what they left --------------------------------------------------

    async def _succeed(self, owner: owners.Owner) -> int:
        """Free what an owner had leased, and bury it; returns how many messages it was."""
        freed: int = await self._act(self._free, owner=owner)
        portion = _SWEEP
        while portion == _SWEEP:
            portion = await self._act(
                rows.bring_back, owner=owner.number, now=self._now(), limit=_SWEEP
            )
            freed += portion
        await self._in_thread(owner.bury)
        return freed

    def _free(self, connection: Connection, owner: owners.Owner) -> int:
        incoming = list(self._folder.incoming_of(owner.number))
        return rows.take_over(connection, owner.number, self._now(), incoming)

    async def _sweep(self) -> None:
        """Remove content files whose messages are gone."""
        try:
            numbers = await self._in_thread(self._reader.call, rows.leftovers, _SWEEP)
            if numbers:
                await self._in_thread(self._unlink, numbers)
                await self._act(rows.forget_leftovers, numbers=numbers)
        except OSError as error:  # they stay in the list
            self.log.warn("spool: {error}", error=str(error))

    def _unlink(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._folder.content(number).unlink(missing_ok=True)


def _discard(drafts: Sequence[tuple[Draft, Envelope]]) -> None:
    for draft, _ in drafts:
        draft.discard()


def _is_for_others(settlement: Settlement, now: float) -> bool:
    """Whether another process may have something to do with it at once."""
    return settlement.due <= now or any(
        progress.state is State.HELD for progress in settlement.progress
    )
