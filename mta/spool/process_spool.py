"""The spool of one running process, whatever its database is."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mta.interfaces import IAttempts, IPreviews, IQueue, ISpool, ISpoolListener, ITakenMail
from mta.mail import Envelope, Recipient
from mta.queued import AlreadyTaken, IDraft, Message, Settlement
from mta.session import Origin
from mta.spool import clock, owner_rows, queue_id
from mta.spool.attempts import AttemptNotes
from mta.spool.commits import Commits
from mta.spool.drafts import Draft, Incoming
from mta.spool.heartbeat import Heartbeat
from mta.spool.interfaces import IReading
from mta.spool.jobs import ICommitter
from mta.spool.leasing import Leasing
from mta.spool.owners import Owner
from mta.spool.taken import key_of
from mta.spool.wakeup_pipe import WakeupPipe


@implementer(ISpool, IPreviews, ITakenMail, IQueue, IAttempts)
class ProcessSpool(ABC):
    """Joins the parts that work for one owner.

    A subclass makes them in `start`, and ends its own in `_leave` and `_end`.
    """

    log: ClassVar[Logger] = Logger()

    _attempts: AttemptNotes
    _commits: Commits
    _heartbeat: Heartbeat
    _leasing: Leasing
    _owner: Owner
    _pipe: WakeupPipe
    _reading: IReading

    def __init__(
        self,
        reactor: Any,
        pool: ThreadPool,
        listener: ISpoolListener,
        committer: ICommitter,
        *,
        now: Callable[[], float] = time.time,
        uptime: Callable[[], float] | None = None,
    ) -> None:
        """`reactor`: IReactorTime, IReactorFromThreads and IReactorFDSet.

        `now`: seconds since the epoch; `uptime`: seconds of a clock that is never set, the
        reactor's where it is not given.
        """
        self._listener = listener
        self._committer = committer
        self._folder = committer.folder
        self._reactor = reactor
        self._pool = pool
        self.now = now  # by which mail is tried
        self._ids = queue_id.QueueIds(now)
        self._clocks = clock.Clocks(now, uptime or reactor.seconds)

    @abstractmethod
    def start(self) -> None:
        """Open the spool, making it if need be; call `take_over` next.

        Raises SpoolUnusable or OSError, in one line for people.
        """

    async def stop(self) -> None:
        """Commit what waits, leave leases to the next owner, and close."""
        self._rest()
        self._pipe.close()
        try:
            await self._leave()
        except OSError as error:  # another process takes over
            self.log.warn("spool: {error}", error=str(error))
            self._owner.close()
        await self._committer.stop()
        self._attempts.close()
        await self._end()

    @abstractmethod
    async def take_over(self) -> int:
        """Free what dead owners had leased, and remove what they left.

        Returns how many messages it were.  Call it at start and every few seconds.  Raises OSError;
        try again later.
        """

    async def peers_to_dial(self, peers: Collection[str]) -> Collection[str]:
        """Those of these peers that no other host dials.  Raises OSError."""
        return peers

    @abstractmethod
    async def _leave(self) -> None:
        """Free what is our own, at an orderly end.  Raises OSError."""

    @abstractmethod
    async def _end(self) -> None:
        """Wake the others, and close the connections, after the last commit."""

    def _begin(self, owner: int) -> None:
        """Let the parts work."""
        self._committer.start(owner)
        self._heartbeat.start()
        self._maturing = self._reactor.callLater(owner_rows.SUSPECT_DELAY, self._mature)

    def _mature(self) -> None:
        """Try messages that others died on, now that we have lived."""
        self._leasing.tries_suspects = True
        self._listener.wake()

    def _rest(self) -> None:
        """Let no part begin anything any more."""
        self._heartbeat.stop()
        if self._maturing.active():
            self._maturing.cancel()

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

    def counts_by_state(self) -> Mapping[str, tuple[int, float]]:
        """The number of messages in each state, and when the oldest came.

        In seconds since the epoch.  Blocks, and reads the whole queue.  Raises OSError, at once
        where it is being counted already.
        """
        return self._reading.counts_by_state()

    def held_by_peer(self) -> Mapping[str, tuple[int, float]]:
        """The number of messages held for each peer, and the oldest's arrival.

        As `counts_by_state`.
        """
        return self._reading.held_by_peer()

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
        await self._heartbeat.follow_clock()
        messages = await self._commits.commit([incoming])
        if not messages:
            raise AlreadyTaken(f"{origin.told_id} was brought before")
        return messages[0]

    async def preview(
        self, draft: IDraft, envelope: Envelope, header: bytes, origin: Origin
    ) -> Message | None:
        """See `IPreviews.preview`."""
        assert isinstance(draft, Draft)
        return await self._commits.preview(Incoming(draft, envelope, header, origin))

    async def has_taken(self, origin: Origin, recipients: Collection[Recipient]) -> bool:
        """See `ITakenMail.has_taken`."""
        keys = {key_of(origin, recipient) for recipient in recipients}
        return keys <= {*await self._reading.taken(keys)}

    # --- IQueue --------------------------------------------------------------------

    async def lease_due(self, limit: int) -> Sequence[Message]:
        """See `ILeases.lease_due`."""
        await self._heartbeat.follow_clock()
        return await self._leasing.lease_due(limit)

    async def lease(self, ids: Collection[str]) -> Sequence[Message]:
        """See `ILeases.lease`."""
        await self._heartbeat.follow_clock()
        return await self._leasing.lease([*map(queue_id.decode, ids)])

    async def next_due(self) -> float | None:
        """See `ILeases.next_due`."""
        return await self._reading.next_due(suspects=self._leasing.tries_suspects)

    async def keeps_suspects(self) -> bool:
        """Tell whether what is due next waits for an older process."""
        every = await self._reading.next_due(suspects=True)
        return every != await self.next_due()

    async def release(self, dues: Mapping[str, float]) -> None:
        """See `ILeases.release`."""
        await self._heartbeat.follow_clock()
        await self._leasing.release(dues)

    async def lease_held(
        self, peer: str, domains: Collection[str], limit: int, before: float
    ) -> Sequence[Message]:
        """See `IHeldLeases.lease_held`."""
        await self._heartbeat.follow_clock()
        return await self._leasing.lease_held(peer, domains, limit, before)

    async def count_held(self, peer: str, domains: Collection[str], limit: int) -> int:
        """See `IHeldLeases.count_held`."""
        return await self._reading.count_held(peer, domains, limit)

    async def peers_with_mail(self, peers: Collection[str]) -> Collection[str]:
        """See `IHeldLeases.peers_with_mail`."""
        return await self._reading.peers_with_mail(peers)

    async def settle(self, settlement: Settlement) -> Sequence[Message]:
        """See `IAttemptRecords.settle`."""
        await self._heartbeat.follow_clock()
        return await self._commits.settle(settlement)

    async def remove(self, ids: Collection[str], delay: float) -> None:
        """See `IAttemptRecords.remove`."""
        await self._commits.remove(ids, delay)

    async def recalled(self, ids: Collection[str]) -> Collection[str]:
        """See `IAttemptRecords.recalled`."""
        numbers: list[int] = [*map(queue_id.decode, ids)]
        return [*map(queue_id.encode, await self._reading.recalled(numbers))]

    async def postpone(
        self, dues: Mapping[str, float], warn_after: float, give_up_after: float
    ) -> Mapping[str, int]:
        """See `IAttemptRecords.postpone`."""
        await self._heartbeat.follow_clock()
        return await self._leasing.postpone(dues, warn_after, give_up_after)

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
