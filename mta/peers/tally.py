"""The tally of the mail that one connection with a peer carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from zope.interface import implementer

from mta.interfaces import IMailSource, IPeerMeter
from mta.mail import Outcome, Reply, Status
from mta.peers.interfaces import ITallyWatch
from mta.peers.status_files import EndedExchange
from mta.queued import Delivery
from mta.smtp import replies


@dataclass(slots=True)
class Tally:
    """The mail that one connection has carried.

    Of `refused` messages the peer refused a recipient for good.
    `octets` are those of content, both ways.  `turned`: the roles have changed, and stayed so for
    `turned_for` seconds until the connection ended, the last `quiet_for` of them without mail;
    `lost`: it broke, and `error` says how.  `replies` are the peer's to our request for mail.
    `opened` and `unopened`: sealed messages that the peer took, and that it does not offer to take.
    """

    sent: int = 0
    refused: int = 0
    received: int = 0
    octets: int = 0
    turned: bool = False
    turned_for: float = 0.0
    quiet_for: float = 0.0
    lost: bool = False
    error: str = ""
    replies: list[Reply] = field(default_factory=list)
    opened: int = 0
    unopened: int = 0

    def ended(self, now: float, lasted: float, error: str) -> EndedExchange:
        """The exchange of this connection, which ends now.  `now`: since the epoch."""
        return EndedExchange(now, lasted, self.sent, self.received, error)

    @property
    def has_moved_mail(self) -> bool:
        """Tell whether any mail went over the connection."""
        return bool(self.sent or self.received)


@implementer(ITallyWatch)
class Unwatched:
    """Follows nothing."""

    def changed(self, tally: Tally) -> None:
        """See `ITallyWatch.changed`."""


@implementer(ITallyWatch)
class Refusals:
    """Counts the messages that a peer refused, among what peers do."""

    def __init__(self, peer: str, meter: IPeerMeter) -> None:
        self._peer = peer
        self._meter = meter
        self._counted = 0

    def changed(self, tally: Tally) -> None:
        """See `ITallyWatch.changed`."""
        if tally.refused > self._counted:
            self._counted = tally.refused
            self._meter.refused(self._peer)


@implementer(IMailSource)
class CountedSource:
    """Counts the deliveries of another source in a tally."""

    def __init__(self, source: IMailSource, tally: Tally, watch: ITallyWatch | None = None) -> None:
        self._source = source
        self._tally = tally
        self._watch = watch or Unwatched()

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.report`."""
        self._source.report(delivery, outcomes)
        statuses = {outcome.status for outcome in outcomes}
        if Status.RELAYED in statuses:
            self._tally.sent += 1
            self._tally.octets += delivery.message.content.size
            self._tally.opened += delivery.message.envelope.sealed
        self._tally.refused += Status.FAILED in statuses
        if statuses & {Status.RELAYED, Status.FAILED}:
            self._watch.changed(self._tally)
        elif any(outcome.reply is replies.SEALED for outcome in outcomes):
            self._tally.unopened += 1
            self._watch.changed(self._tally)

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`."""
        return await self._source.next()

    async def wait(self) -> bool:
        """See `IMailSource.wait`."""
        return await self._source.wait()

    def return_unsent(self, delivery: Delivery) -> None:
        """See `IMailSource.return_unsent`."""
        self._source.return_unsent(delivery)
