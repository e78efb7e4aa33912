"""The look into the spool for mail of all linked peers.

A thousand sources that looked for themselves would keep the spool busy at each message that
another process took in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mta.interfaces import IHeldLeases
from mta.queue.tasks import Tasks

if TYPE_CHECKING:
    from mta.queue.held_source import HeldSource

POLL = 60.0  # seconds between two looks, while no process tells of mail


class HeldLook:
    """Wakes those of the `sources`, by peer, for which mail waits."""

    log = Logger()

    def __init__(
        self,
        sources: Mapping[str, HeldSource],
        queue: IHeldLeases,
        tasks: Tasks,
        clock: IReactorTime,
    ) -> None:
        self._sources = sources
        self._queue = queue
        self._tasks = tasks
        self._clock = clock
        self._next: IDelayedCall | None = None
        self._is_wanted = False
        self._is_looking = False

    def take(self) -> None:
        """Look now, or again where a look is under way."""
        self._is_wanted = True
        if not self._is_looking:
            self._is_looking = True
            self._tasks.start(self._look())

    def go_on(self) -> None:
        """Look every so often, for as long as any link stands."""
        if self._next is None:
            self._next = self._clock.callLater(POLL, self._time_passed)

    def stop(self) -> None:
        """Look no more every so often."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _time_passed(self) -> None:
        self._next = None
        if any(not source.is_closed for source in self._sources.values()):
            self.take()
            self.go_on()

    async def _look(self) -> None:
        try:
            while self._is_wanted:
                self._is_wanted = False
                await self._wake_sources()
        except OSError as error:
            self.log.error("held mail can't be looked for: {error}", error=str(error))
        finally:
            self._is_looking = False

    async def _wake_sources(self) -> None:
        peers = [peer for peer, source in self._sources.items() if not source.is_closed]
        for peer in await self._queue.peers_with_mail(peers) if peers else ():
            self._sources[peer].wake()
