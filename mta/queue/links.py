"""The turned connections that mail held for peers can go out on."""

from __future__ import annotations

from collections.abc import Callable, Collection

from twisted.internet.interfaces import IReactorTime

from mta.queue.held import HeldMail
from mta.queued import Target


class Links:
    """The sources of one runner's turned connections; the newest of each peer gets its mail."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._newest: dict[str, HeldMail] = {}
        self._sources: set[HeldMail] = set()

    def add(self, peer: str, make: Callable[[], HeldMail]) -> HeldMail:
        """Add a source; an older one of the same peer hands out no more."""
        older = self._newest.get(peer)
        if older is not None:
            older.retire()
        source = self._newest[peer] = make()
        self._sources.add(source)
        return source

    def remove(self, source: HeldMail) -> None:
        """A connection is over."""
        self._sources.discard(source)
        if self._newest.get(source.peer) is source:
            del self._newest[source.peer]

    def taking(self, target: Target, source: HeldMail | None) -> HeldMail | None:
        """The source that hands out mail for a target now; `source` leased the message."""
        if source is None or source.peer != target.hop.next_hop:
            source = self._newest.get(target.hop.next_hop)
            if source is None or not source.is_current:
                return None
        return source if source.takes(target.address) else None

    def mail_came(self, peer: str, leased_by: object) -> None:
        """Mail for a peer is held in the spool, which the source that leased it knows."""
        link = self._newest.get(peer)
        if link is not None and link is not leased_by:
            link.wake()

    def wake(self) -> None:
        """The spool may hold mail that nobody here has put there."""
        for source in self._sources:
            source.wake()

    def withdraw(self, ids: Collection[str]) -> None:
        """Hand out none of these messages."""
        for source in self._sources:
            source.withdraw(ids)

    def retire(self) -> None:
        """Hand out no more on any connection of now."""
        for source in list(self._sources):
            source.retire()

    async def stop(self, end: float) -> None:
        """Let what is out come back, until that time of the clock."""
        for source in list(self._sources):
            await source.stop(end - self._clock.seconds())
