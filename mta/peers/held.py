"""The mail held for peers: how much there is, and as the source of a turned connection."""

from __future__ import annotations

from collections.abc import Collection

from zope.interface import implementer

from mta.interfaces import IHeldLeases, IHeldMail, IHeldSource
from mta.queue.runner import Runner

MAX_DELAY = 5.0  # seconds that peers wait until it is known whose the newest mail is


@implementer(IHeldMail)
class HeldMail:
    """The mail that the spool holds for peers, or the runner is about to hold."""

    def __init__(self, queue: IHeldLeases, runner: Runner) -> None:
        self._queue = queue
        self._runner = runner

    async def count(self, peer: str, domains: Collection[str], limit: int) -> int:
        """See `IHeldMail.count`."""
        await self._runner.record_held(peer, MAX_DELAY)
        count: int = await self._queue.count_held(peer, domains, limit)
        return count

    def open(self, peer: str, domains: Collection[str], linger: float) -> IHeldSource:
        """See `IHeldMail.open`."""
        source: IHeldSource = self._runner.open_held(peer, domains, linger)
        return source
