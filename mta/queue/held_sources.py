"""The sources of held mail that stand: one for each turned connection."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.interfaces import IReactorTime

from mta.interfaces import IAttempts, IHeldLeases
from mta.queue.held_source import HeldSource
from mta.queue.interfaces import IActiveQueue
from mta.queue.tasks import Tasks
from mta.queued import Target


class HeldSources:
    """The sources of one runner's turned connections.

    The newest of each peer gets its mail.
    """

    def __init__(
        self,
        queue: IHeldLeases,
        active: IActiveQueue,
        attempts: IAttempts,
        tasks: Tasks,
        clock: IReactorTime,
    ) -> None:
        self._queue = queue
        self._active = active
        self._attempts = attempts
        self._tasks = tasks
        self._clock = clock
        self._newest: dict[str, HeldSource] = {}
        self._sources: set[HeldSource] = set()
        self._stopped = False

    def open(self, peer: str, domains: Collection[str], linger: float) -> HeldSource:
        """Make a source.  An older one of the peer hands out no more."""
        self._sources = {source for source in self._sources if not source.is_closed}
        older = self._newest.get(peer)
        if older is not None:
            older.retire()
        source = self._newest[peer] = HeldSource(
            peer,
            domains,
            linger,
            self._queue,
            self._active,
            self._attempts,
            self._tasks,
            self._clock,
        )
        self._sources.add(source)
        if self._stopped:
            source.retire()
        return source

    def taking(self, target: Target, source: HeldSource | None) -> HeldSource | None:
        """The source that hands out mail for a target now.

        `source` leased the message, where it is there.
        """
        if source is None or source.peer != target.hop.next_hop:
            source = self._newest.get(target.hop.next_hop)
            if source is None or not source.is_current:
                return None
        return source if source.takes(target.address) else None

    def mail_came(self, peer: str, leased_by: object) -> None:
        """Let the newest source of a peer look into the spool.

        It need not where it leased that mail itself.
        """
        source = self._newest.get(peer)
        if source is not None and source is not leased_by:
            source.wake()

    def wake(self) -> None:
        """Let all sources look for mail of other processes."""
        for source in self._sources:
            source.wake()

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
        self.retire()

    async def stop(self, end: float) -> None:
        """Let what is out come back, until that time of the clock."""
        for source in list(self._sources):
            await source.stop(end - self._clock.seconds())
