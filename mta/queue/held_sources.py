"""The sources of held mail that stand: one for each turned connection."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mta.interfaces import IAttempts, IHeldLeases
from mta.queue.held_look import HeldLook
from mta.queue.held_source import HeldSource
from mta.queue.interfaces import IActiveQueue, IHeldOutlet
from mta.queue.tasks import Tasks
from mta.queued import Message, Target
from mta.session import LinkKind


class HeldSources:
    """The sources of one runner's turned connections.

    The newest of each peer gets its mail.  Beside it there may be one of a quick link.
    """

    def __init__(
        self,
        queue: IHeldLeases,
        active: IActiveQueue,
        attempts: IAttempts,
        tasks: Tasks,
        clock: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        """`now`: seconds since the epoch."""
        self._queue = queue
        self._active = active
        self._attempts = attempts
        self._tasks = tasks
        self._clock = clock
        self._now = now
        self._newest: dict[str, HeldSource] = {}
        self._quick: dict[str, HeldSource] = {}
        self._look = HeldLook(self._newest, queue, tasks, clock)
        self._sources: set[HeldSource] = set()
        self._stopped = False

    def open(
        self, peer: str, domains: Collection[str], linger: float, kind: LinkKind = LinkKind.MAIN
    ) -> HeldSource:
        """Make a source.  An older one of the peer hands out no more."""
        is_quick = kind is LinkKind.QUICK
        newest = self._quick if is_quick else self._newest
        queue = _SmallMail(self._newest) if is_quick else self._queue
        self._sources = {source for source in self._sources if not source.is_closed}
        if peer in newest:
            newest[peer].retire()
        source = newest[peer] = HeldSource(
            peer,
            domains,
            linger,
            queue,
            self._active,
            self._attempts,
            self._tasks,
            self._clock,
            self._now,
        )
        self._sources.add(source)
        if self._stopped:
            source.retire()
        else:
            self._look.go_on()
        if peer in self._newest and peer in self._quick:
            self._newest[peer].share_with(self._quick[peer])
        return source

    def taking(self, target: Target, source: IHeldOutlet | None) -> IHeldOutlet | None:
        """The source that hands out mail for a target now.

        `source` leased the message, where it is there.
        """
        if source is None or source.peer != target.hop.next_hop:
            source = self._newest.get(target.hop.next_hop)
            if source is None or not source.is_current:
                return None
        return source if source.takes(target.address) else None

    def at_once(self, peer: str) -> HeldSource | None:
        """The source that hands out mail whose sender waits, if any."""
        source = self._newest.get(peer)
        return source if source is not None and source.takes_at_once else None

    def let_go(self, id: str) -> None:
        """Note that the sender of a message waits no more."""
        for source in self._sources:
            source.let_go(id)

    def mail_came(self, peer: str, leased_by: object) -> None:
        """Let the newest source of a peer look into the spool.

        It need not where it leased that mail itself.
        """
        source = self._newest.get(peer)
        if source is not None and source is not leased_by:
            source.wake()

    def wake(self) -> None:
        """Look for mail of other processes."""
        self._look.take()

    def withdraw(self, ids: Collection[str]) -> None:
        """Hand out none of these messages."""
        for source in list(self._sources):
            source.withdraw(ids)

    def retire(self) -> None:
        """Hand out no more on any connection of now."""
        for source in list(self._sources):
            source.retire()

    def begin_stop(self) -> None:
        """Hand out no more on any connection, whenever it came."""
        self._stopped = True
        self._look.stop()
        self.retire()

    async def stop(self, end: float) -> None:
        """Let what is out come back, until that time of the clock."""
        for source in list(self._sources):
            await source.stop(end - self._clock.seconds())


@implementer(IHeldLeases)
class _SmallMail:
    """The mail of quick links: what the main ones can spare."""

    def __init__(self, main: Mapping[str, HeldSource]) -> None:
        self._main = main

    async def lease_held(
        self, peer: str, domains: Collection[str], limit: int, before: float
    ) -> Sequence[Message]:
        """See `IHeldLeases.lease_held`: what the main link can spare comes by itself."""
        if peer in self._main:
            self._main[peer].share()
        return ()

    async def peers_with_mail(self, peers: Collection[str]) -> Collection[str]:
        """See `IHeldLeases.peers_with_mail`."""
        return ()

    async def count_held(self, peer: str, domains: Collection[str], limit: int) -> int:
        """See `IHeldLeases.count_held`."""
        return 0
