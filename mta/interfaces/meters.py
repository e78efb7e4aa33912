"""The numbers and the state that monitoring sees."""

from __future__ import annotations

from collections.abc import Collection, Mapping

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


class IAuthenticationMeter(Interface):
    """Counts messages from outside that were judged."""

    def judged(spf: str, dkim: str, dmarc: str, action: str) -> None:
        """Count a message, by its results and what was done with it."""


class IFilterMeter(Interface):
    """Counts what filters say of messages."""

    def filtered(filter: str, result: str) -> None:
        """Count a result of a filter.

        It is one of accepted, refused, deferred, discarded, held and failed.
        """


class ILimitMeter(Interface):
    """Counts users and hosts that have reached a limit."""

    def limited(limit: str) -> None:
        """Count one: of recipients, or of failures."""


class IPeerMeter(Interface):
    """Counts what peers do, for `mta peers` and the metrics.  Called often: it must be quick.

    The counts of all processes come together in the spool, a second later, and stay.
    """

    def answered(peer: str, source: str) -> None:
        """Count a question whether a mailbox of the peer exists.

        `source` of the answer: one of `mta.session.ANSWER_SOURCES`.
        """

    def passed_through(peer: str) -> None:
        """Count a message whose sender got the peer's own answer."""

    def refused(peer: str) -> None:
        """Count a message of which the peer refused a recipient for good."""

    def sealed(peer: str) -> None:
        """Count a message that was encrypted to the peer's key."""


class IMeter(
    ISessionMeter,
    IDeliveryMeter,
    ICommitMeter,
    IAuthenticationMeter,
    IFilterMeter,
    ILimitMeter,
):
    """Counts all that metrics show."""


class IStatusSource(Interface):
    """The state of the server, looked up when monitoring asks for it."""

    def counts_by_state() -> Mapping[str, tuple[int, float]]:
        """The number of messages in each state, and the oldest arrival.

        Arrivals are in seconds since the epoch.  Blocks.  Raises OSError.
        """

    def peers() -> Mapping[str, Mapping[str, float]]:
        """By peer: figures of its links, and the counts of `IPeerMeter`.

        `link` is 1 where a turned connection stands, `link_since` when it began, in seconds since
        the epoch, and `round_trip` in seconds; `waiting` are the messages held for it, and `oldest`
        is when the first of them came.  What is not known is missing.  Blocks.  Raises OSError.
        """

    async def health() -> str:
        """The problem of the server, in one line; empty: none."""
