"""Mail of other processes, on links of this one.

Another process has the message, and its sender, who waits for a reply; the link of its peer is
here.  It is handed out as ours is, and the other process hears what became of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zope.interface import implementer

from mta.mail import Outcome
from mta.queue.active_limits import ActiveLimits
from mta.queue.held_source import HeldSource
from mta.queue.held_sources import HeldSources
from mta.queue.interfaces import IActiveQueue, IBorrowedMail, IBorrowedResult
from mta.queued import Delivery, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class BorrowedDelivery(Delivery):
    """A delivery of another process, which waits for its `result`."""

    result: IBorrowedResult


@implementer(IActiveQueue)
class QueueWithBorrowed:
    """The active queue, as sources with borrowed mail know it."""

    def __init__(self, active: IActiveQueue, limits: ActiveLimits) -> None:
        self._active = active
        self._limits = limits

    async def attempt_held(self, message: Message, source: HeldSource) -> None:
        """See `IActiveQueue.attempt_held`."""
        await self._active.attempt_held(message, source)

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IDeliveryResults.report`."""
        if isinstance(delivery, BorrowedDelivery):
            self._limits.leave(delivery.message)
            delivery.result.came(outcomes)
        else:
            self._active.report(delivery, outcomes)

    def not_attempted(self, delivery: Delivery) -> None:
        """See `IDeliveryResults.not_attempted`."""
        self._active.not_attempted(delivery)

    def outcome_unknown(self, delivery: Delivery) -> None:
        """See `IDeliveryResults.outcome_unknown`."""
        self._active.outcome_unknown(delivery)


@implementer(IBorrowedMail)
class BorrowedMail:
    """The borrowed mail of one process, in the sources of its links."""

    def __init__(self, sources: HeldSources, limits: ActiveLimits) -> None:
        self._sources = sources
        self._limits = limits

    def take(self, delivery: Delivery, result: IBorrowedResult) -> bool:
        """See `IBorrowedMail.take`."""
        message, targets = delivery.message, delivery.targets
        source = self._sources.at_once(targets[0].hop.next_hop)
        if source is None or not all(source.takes(target.address) for target in targets):
            return False
        if self._limits.is_full_for(message):
            return False
        self._limits.enter(message)
        source.give(BorrowedDelivery(message, targets, sender_waits=True, result=result))
        return True

    def let_go(self, id: str) -> None:
        """See `IBorrowedMail.let_go`."""
        self._sources.let_go(id)

    def give_back(self, id: str) -> None:
        """See `IBorrowedMail.give_back`."""
        self._sources.withdraw([id])
