"""The mail held for peers: how much there is, and as the source of a turned connection."""

from __future__ import annotations

from collections.abc import Collection

from zope.interface import implementer

from mta.interfaces import IHeldMail, IHeldSource, IQueue
from mta.queue.runner import Runner

MAX_DELAY = 5.0  # seconds that peers wait until it is known whose the newest mail is


@implementer(IHeldMail)
class MailForPeers:
    """What the spool holds for peers, and the runner is about to hold.

    The `runner` is there before any connection is.
    """

    runner: Runner

    def __init__(self, queue: IQueue) -> None:
        self._queue = queue

    async def count(self, peer: str, domains: Collection[str], limit: int) -> int:
        """See `IHeldMail.count`."""
        await self.runner.held_is_recorded(peer, MAX_DELAY)
        count: int = await self._queue.count_held(peer, domains, limit)
        return count

    def open(self, peer: str, domains: Collection[str], linger: float) -> IHeldSource:
        """See `IHeldMail.open`."""
        source: IHeldSource = self.runner.held(peer, domains, linger)
        return source
