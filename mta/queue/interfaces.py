"""The seams of the queue: results, sessions, attempts, links elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

from mta.mail import Hop, Mailbox, Outcome
from mta.queued import Delivery, Message

if TYPE_CHECKING:
    from mta.queue.attempt import Attempt
    from mta.queue.destination import Destination
    from mta.queue.held_source import HeldSource
    from mta.queue.long_plans import Unplanned


class IDeliveryResults(Interface):
    """Hears what became of deliveries, once of each."""

    def report(delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """Report one outcome for each target, in order."""

    def not_attempted(delivery: Delivery) -> None:
        """Give back a delivery that was not attempted.

        We stop, or it was withdrawn.
        """

    def outcome_unknown(delivery: Delivery) -> None:
        """Give back a delivery that was cut off, and may have succeeded."""


class IActiveQueue(IDeliveryResults):
    """The attempts under way, as the sources of held mail know them."""

    async def attempt_held(message: Message, source: HeldSource) -> None:
        """Attempt a message that a source leased for its peer.

        Returns once the source has what it is to hand out of it.
        """


class IPlannedAttempts(IDeliveryResults):
    """The attempts under way, as the maker of their plans knows them."""

    def planned(delivery: Unplanned) -> None:
        """Go on with an attempt whose plan is made."""


class ISessionWatch(Interface):
    """Sees to it that mail and sessions find each other."""

    def changed(destination: Destination) -> None:
        """Note that a destination may want another session, or none."""


class IAttemptWatch(Interface):
    """Goes on where an attempt leaves off."""

    def ended(attempt: Attempt) -> None:
        """Take an attempt whose last delivery is back."""


class IRoomWatch(IAttemptWatch):
    """Hears of room in memory, too."""

    def hop_has_room(hop: Hop) -> None:
        """Note that a delivery for a hop is out of memory."""


class IHeldOutlet(Interface):
    """The way to a peer for mail whose sender waits."""

    peer: str = Attribute("the name of the peer")

    def takes(address: Mailbox) -> bool:
        """Tell whether mail for that address goes this way."""

    def give(delivery: Delivery) -> None:
        """Hand out this delivery next.  The active queue hears its outcomes."""


class ILinksElsewhere(Interface):
    """The links of peers in other processes.  A message is lent to one, which hands it out."""

    def outlet(peer: str, results: IDeliveryResults) -> IHeldOutlet | None:
        """The way to a peer; None: there is none now.  `results` hear what became of mail."""

    def let_go(id: str) -> None:
        """Note that the sender of a message waits no more."""


class IBorrowedResult(Interface):
    """Hears what became of a delivery of another process."""

    def came(outcomes: Sequence[Outcome]) -> None:
        """Take one outcome for each target, in order, once."""


class IBorrowedMail(Interface):
    """The mail of other processes, on links of this one."""

    def take(delivery: Delivery, result: IBorrowedResult) -> bool:
        """Hand out a delivery whose sender waits.

        Returns False where that can't be done now.
        """

    def let_go(id: str) -> None:
        """Note that the sender of a message waits no more."""

    def give_back(id: str) -> None:
        """Hand out a message no more, unless it is on its way."""
