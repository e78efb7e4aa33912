"""The customer's side: dial a peer, hand over our mail, turn the connection, take ours.

RFC 2645 section 5, RFC 821 section 3.8, RFC 1985.  Whoever we dialled is, once the connection
is turned, an MX for our domains and nothing more: AUTH proved us to it, and it to us nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from zope.interface import implementer

from mta.delivery.relay import Dialler
from mta.interfaces import (
    ChannelLost,
    Delivery,
    HopFailure,
    IChannel,
    IMailSource,
    IRole,
    Message,
    Session,
)
from mta.mail import Outcome, Reply, Status
from mta.settings import Peer
from mta.smtp.receiver import Receiver, Reception
from mta.smtp.sender import Demands, Sender, Turn

NO_MAIL = 453  # RFC 2645 section 5.2.1: an answer, not a failure
NO_TURN = Reply(451, "4.4.2", ("The connection was lost before it was turned",))


@dataclass(slots=True)
class Tally:
    """What one exchange has done so far; `octets` counts what was received.

    `turned`: the peer agreed to hand us our mail.  `lost`: the turned connection broke.
    """

    sent: int = 0
    received: int = 0
    octets: int = 0
    turned: bool = False
    lost: bool = False
    replies: list[Reply] = field(default_factory=list)


@implementer(IMailSource)
class NoMail:
    """The source where nothing is to be sent."""

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`."""
        return None

    async def more(self) -> bool:
        """See `IMailSource.more`."""
        return False

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.settle`: never called, as nothing is handed out."""


@implementer(IMailSource)
class _Counted:
    """A source whose deliveries count in a tally."""

    def __init__(self, source: IMailSource, tally: Tally, changed: Callable[[], None]) -> None:
        self._source = source
        self._tally = tally
        self._changed = changed
        self.next = source.next
        self.more = source.more

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.settle`."""
        self._source.settle(delivery, outcomes)
        if any(outcome.status is Status.RELAYED for outcome in outcomes):
            self._tally.sent += 1
            self._changed()


@implementer(IRole)
class _Turned:
    """The receiver after the turn, which notes how it ended."""

    def __init__(self, receiver: Receiver, tally: Tally) -> None:
        self._receiver = receiver
        self._tally = tally

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        try:
            return await self._receiver.converse(channel)
        except ChannelLost:
            self._tally.lost = True
            return None


class Exchange:
    """One exchange with a peer.

    `reception` is what a receiver of ours needs, `progress` hears of each change of the tally.
    """

    def __init__(
        self,
        peer: Peer,
        dialler: Dialler,
        reception: Reception,
        progress: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        self._peer = peer
        self._dialler = dialler
        self._reception = reception
        self._progress = progress
        self.tally = Tally()

    async def run(self, source: IMailSource) -> Tally:
        """Hand over what `source` has, then ask for our mail and take it.

        Raises HopFailure with what the peer said, or what kept us from hearing it.
        """
        await self._converse(source, self._turn())
        tally = self.tally
        if not tally.replies:
            raise HopFailure(Outcome(Status.DEFERRED, NO_TURN))
        refusal = next((reply for reply in tally.replies if not reply.is_positive), None)
        if refusal is not None and refusal.code != NO_MAIL:
            raise HopFailure(Outcome(Status.DEFERRED, refusal))
        return tally

    async def hand_over(self, source: IMailSource) -> None:
        """Only hand over what `source` has.  Raises HopFailure."""
        await self._converse(source, None)

    async def _converse(self, source: IMailSource, turn: Turn | None) -> None:
        peer = self._peer
        assert peer.connect is not None
        hop = replace(peer.connect, security=peer.tls, pin=peer.pin)
        counted = _Counted(source, self.tally, self._changed)

        def role(demands: Demands) -> IRole:
            return Sender(counted, demands, turn)

        await self._dialler.converse(hop, role)

    def _turn(self) -> Turn:
        peer = self._peer
        if peer.method == "etrn":
            return Turn([f"ETRN {domain}" for domain in peer.domains], self._told)
        depot = replace(self._reception.depot, accepted=self._accepted)
        receiver = Receiver(replace(self._reception, depot=depot), partner=peer.name)
        command = "TURN" if peer.method == "turn" else f"ATRN {','.join(peer.domains)}"
        return Turn([command], self._told, _Turned(receiver, self.tally))

    def _told(self, reply: Reply) -> None:
        self.tally.replies.append(reply)
        self.tally.turned = self.tally.turned or reply.is_positive
        self._changed()

    def _accepted(self, message: Message, session: Session) -> None:
        self.tally.received += 1
        self.tally.octets += message.content.size
        self._changed()
        self._reception.depot.accepted(message, session)

    def _changed(self) -> None:
        self._progress(self.tally)
