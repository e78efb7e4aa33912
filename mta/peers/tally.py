"""What went over one connection with a peer, counted as it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zope.interface import implementer

from mta.interfaces import IMailSource
from mta.mail import Outcome, Reply, Status
from mta.queued import Delivery


@dataclass(slots=True)
class Tally:
    """What one connection has carried so far; `octets` are those of content, both ways.

    `turned`: the roles have changed, and stayed so for `turned_for` seconds until the connection
    ended, the last `quiet_for` of them without mail; `lost`: it broke, and `trouble` says how.
    `replies` are the peer's to our request for mail.
    """

    sent: int = 0
    received: int = 0
    octets: int = 0
    turned: bool = False
    turned_for: float = 0.0
    quiet_for: float = 0.0
    lost: bool = False
    trouble: str = ""
    replies: list[Reply] = field(default_factory=list)

    @property
    def has_moved_mail(self) -> bool:
        """Whether any mail went over the connection."""
        return bool(self.sent or self.received)


@implementer(IMailSource)
class Counted:
    """A source whose deliveries count in a tally; `changed` is called when one did."""

    def __init__(
        self, source: IMailSource, tally: Tally, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._source = source
        self._tally = tally
        self._changed = changed

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.report`."""
        self._source.report(delivery, outcomes)
        if any(outcome.status is Status.RELAYED for outcome in outcomes):
            self._tally.sent += 1
            self._tally.octets += delivery.message.content.size
            self._changed()

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`."""
        return await self._source.next()

    async def wait(self) -> bool:
        """See `IMailSource.wait`."""
        return await self._source.wait()

    def return_unsent(self, delivery: Delivery) -> None:
        """See `IMailSource.return_unsent`."""
        self._source.return_unsent(delivery)
