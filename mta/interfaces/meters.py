"""The numbers that metrics show."""

from __future__ import annotations

from collections.abc import Collection

from zope.interface import Interface

from mta.mail import Hop, Outcome, Reply
from mta.settings import Service


class ISessionMeter(Interface):
    """Counts what happens in sessions.  Called often: it must be quick."""

    def session(service: Service) -> None:
        """Count a connection that was taken."""

    def accepted(service: Service) -> None:
        """Count a message that was taken over."""

    def replied(reply: Reply) -> None:
        """Count a reply to a client."""


class IDeliveryMeter(Interface):
    """Counts attempts to deliver."""

    def know(hops: Collection[Hop]) -> None:
        """Take the hops of the configuration, by which attempts are told apart."""

    def attempted(hop: Hop, outcome: Outcome) -> None:
        """Count an attempt to deliver to one recipient."""


class ICommitMeter(Interface):
    """Counts commits of the spool."""

    def committed(jobs: int, seconds: float) -> None:
        """Count so many jobs that were committed together, in so many seconds."""


class IMeter(ISessionMeter, IDeliveryMeter, ICommitMeter):
    """Counts all that metrics show."""
