"""The seams inside of the queue: results, sessions, attempts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zope.interface import Interface

from mta.mail import Hop, Outcome
from mta.queued import Delivery, Message

if TYPE_CHECKING:
    from mta.queue.attempt import Attempt
    from mta.queue.destination import Destination
    from mta.queue.held_source import HeldSource


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
