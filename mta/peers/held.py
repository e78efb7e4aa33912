"""Held mail: the one seam between peers and the queue."""

from __future__ import annotations

from collections.abc import Collection

from zope.interface import implementer

from mta.interfaces import IHeldLeases, IHeldMail, IHeldSource
from mta.queue.runner import Runner
from mta.session import LinkKind

MAX_DELAY = 5.0  # seconds that a peer waits until it is known where the newest mail goes


@implementer(IHeldMail)
class HeldMail:
    """The mail in the spool that waits for peers."""

    def __init__(self, queue: IHeldLeases, runner: Runner) -> None:
        self._queue = queue
        self._runner = runner

    async def count(self, peer: str, domains: Collection[str], limit: int) -> int:
        """See `IHeldMail.count`."""
        await self._runner.record_held(peer, MAX_DELAY)
        count: int = await self._queue.count_held(peer, domains, limit)
        return count

    def open(
        self, peer: str, domains: Collection[str], linger: float, kind: LinkKind = LinkKind.MAIN
    ) -> IHeldSource:
        """See `IHeldMail.open`."""
        return self._runner.open_held(peer, domains, linger, kind)
