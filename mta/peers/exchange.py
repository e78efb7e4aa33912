"""The customer's side: dial a peer, hand over our mail, turn the connection, take ours.

RFC 2645 section 5, RFC 821 section 3.8, RFC 1985.  Whoever we dialled is, once the connection
is turned, an MX for our domains and nothing more: AUTH proved us to it, and it to us nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

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
from mta.peers.tally import Counted, Tally
from mta.settings import Peer
from mta.smtp.opening import SenderConfig
from mta.smtp.receiver import LINE, Receiver, Reception
from mta.smtp.sender import Sender, Turn

NO_MAIL = 453  # RFC 2645 section 5.2.1: an answer, not a failure
NOT_IMPLEMENTED = frozenset({500, 502})
NO_TURN = Reply(451, "4.4.2", ("The connection was lost before it was turned",))


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

    def give_back(self, delivery: Delivery) -> None:
        """See `IMailSource.give_back`: never called either."""


@implementer(IMailSource)
class _Waiting:
    """Our mail for a peer: it goes on waiting where the peer takes no mail at all on that port.

    So it is with port 366 (RFC 2645 section 5); nothing is wrong with the message.
    """

    def __init__(self, source: IMailSource) -> None:
        self.has_handed_out = False
        self.more = source.more
        self.give_back = source.give_back
        self._source = source

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`."""
        delivery = await self._source.next()
        self.has_handed_out = self.has_handed_out or delivery is not None
        return delivery

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.settle`."""
        self._source.settle(
            delivery,
            [
                replace(outcome, status=Status.DEFERRED)
                if outcome.reply.code in NOT_IMPLEMENTED
                else outcome
                for outcome in outcomes
            ],
        )


class Exchange:
    """One exchange with a peer that we dial.

    `reception` is what a receiver of ours needs; `progress` hears of each change of the tally;
    `while_turned` lasts as long as the turned connection.
    """

    def __init__(
        self,
        peer: Peer,
        dialler: Dialler,
        reception: Reception,
        progress: Callable[[Tally], None] = lambda _: None,
        while_turned: AbstractContextManager[None] | None = None,
    ) -> None:
        self._peer = peer
        self._dialler = dialler
        self._reception = reception
        self._progress = progress
        self._while_turned = while_turned or nullcontext()
        self._tally = Tally()

    async def run(self, source: IMailSource) -> Tally:
        """Hand over what `source` has, then ask for our mail and take it.

        Where the connection ends over our own mail, another one is for the peer's alone.  Raises
        HopFailure with what the peer said, or what kept us from hearing it.
        """
        if not await self._converse(source, self._turn()):
            await self._converse(NoMail(), self._turn())
        tally = self._tally
        if not tally.replies:
            raise HopFailure(Outcome(Status.DEFERRED, NO_TURN))
        refusal = next((reply for reply in tally.replies if not reply.is_positive), None)
        if refusal is not None and refusal.code != NO_MAIL:
            raise HopFailure(Outcome(Status.DEFERRED, refusal))
        return tally

    async def hand_over(self, source: IMailSource) -> None:
        """Only hand over what `source` has.  Raises HopFailure."""
        await self._converse(source, None)

    async def _converse(self, source: IMailSource, turn: Turn | None) -> bool:
        """Hold one conversation; returns whether our own mail left it whole.  Raises HopFailure."""
        peer = self._peer
        assert peer.connect is not None
        hop = replace(peer.connect, security=peer.tls, pin=peer.pin)
        waiting = _Waiting(source)
        counted = Counted(waiting, self._tally, self._changed)
        sender: Sender | None = None

        def role(demands: SenderConfig) -> IRole:
            nonlocal sender
            sender = Sender(counted, demands, turn)
            return sender

        try:
            await self._dialler.converse(hop, role)
        except HopFailure:
            if turn is None or not waiting.has_handed_out or self._tally.replies:
                raise
            return False
        return sender is None or sender.failure is None

    def _turn(self) -> Turn:
        peer = self._peer
        if peer.method == "etrn":
            return Turn(etrn_commands(peer.domains), self._told)
        depot = replace(self._reception.depot, accepted=self._accepted)
        receiver = Receiver(replace(self._reception, depot=depot), partner=peer.name)
        command = "TURN" if peer.method == "turn" else atrn_command(peer.domains)
        return Turn([command], self._told, _Turned(receiver, self._tally, self._while_turned))

    def _told(self, reply: Reply) -> None:
        self._tally.replies.append(reply)
        self._changed()

    def _accepted(self, message: Message, session: Session) -> None:
        self._tally.received += 1
        self._tally.octets += message.content.size
        self._changed()
        self._reception.depot.accepted(message, session)

    def _changed(self) -> None:
        self._progress(self._tally)


@implementer(IRole)
class _Turned:
    """The receiver after the turn, which notes how long it lasted and how it ended."""

    def __init__(
        self,
        receiver: Receiver,
        tally: Tally,
        while_turned: AbstractContextManager[None],
    ) -> None:
        self._receiver = receiver
        self._tally = tally
        self._while_turned = while_turned

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        tally, began = self._tally, channel.seconds()
        tally.turned = True
        try:
            with self._while_turned:
                return await self._receiver.converse(channel)
        except ChannelLost:
            tally.lost = True
            return None
        finally:
            tally.turned_for = channel.seconds() - began


def atrn_command(domains: Sequence[str]) -> str:
    """ATRN for these domains: for all that the peer has where it can't name them."""
    command = f"ATRN {','.join(domains)}"
    is_one_line = len(command) + 2 <= LINE
    if is_one_line and not any(domain.startswith(".") for domain in domains):
        return command
    return "ATRN"


def etrn_commands(domains: Sequence[str]) -> Sequence[str]:
    """An ETRN for each domain, with ``@`` for those below it (RFC 1985 section 5.3)."""
    return [
        f"ETRN @{domain[1:]}" if domain.startswith(".") else f"ETRN {domain}" for domain in domains
    ]
