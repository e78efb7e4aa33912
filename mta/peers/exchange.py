"""The customer's side: dial a peer, hand over our mail, turn the connection, take ours.

RFC 2645 section 5, RFC 821 section 3.8, RFC 1985.  Whoever we dialled is, once the connection
is turned, an MX for our domains and nothing more: AUTH proved us to it, and it to us nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from zope.interface import implementer

from mta.delivery.dialler import Dialler, Transfer
from mta.interfaces import IChannel, IMailSource, IRole, ITurnReplies
from mta.mail import Outcome, Reply, Status
from mta.peers.tally import Counted, Tally
from mta.queued import Delivery, HopFailure, Message
from mta.session import ChannelLost, ChannelTimeout, Session
from mta.settings import Peer
from mta.smtp.receiver import LINE, Receiver, Reception
from mta.smtp.turn import TurnRequest

NO_MAIL = 453  # RFC 2645 section 5.2.1: an answer, not a failure
NOT_IMPLEMENTED = frozenset({500, 502})
# Keepalives without a NOOP or mail after which a turned link is dead: two may be lost or late.
SILENT_KEEPALIVES = 2.5
DEAD = "the link is dead: no mail, no NOOP; a NAT or firewall between may have forgotten it"
NO_TURN = Reply(451, "4.4.2", ("The connection was lost before it was turned",))


@implementer(IMailSource)
class NoMail:
    """The source where nothing is to be sent."""

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`."""
        return None

    async def wait(self) -> bool:
        """See `IMailSource.wait`."""
        return False

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.report`: never called, as nothing is handed out."""

    def return_unsent(self, delivery: Delivery) -> None:
        """See `IMailSource.return_unsent`: never called either."""


@implementer(IMailSource)
class _Waiting:
    """Our mail for a peer: it goes on waiting where the peer takes no mail at all on that port.

    So it is with port 366 (RFC 2645 section 5); nothing is wrong with the message.
    """

    def __init__(self, source: IMailSource) -> None:
        self.has_handed_out = False
        self._source = source

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`."""
        delivery = await self._source.next()
        self.has_handed_out = self.has_handed_out or delivery is not None
        return delivery

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.report`."""
        self._source.report(
            delivery,
            [
                replace(outcome, status=Status.DEFERRED)
                if outcome.reply.code in NOT_IMPLEMENTED
                else outcome
                for outcome in outcomes
            ],
        )

    async def wait(self) -> bool:
        """See `IMailSource.wait`."""
        return await self._source.wait()

    def return_unsent(self, delivery: Delivery) -> None:
        """See `IMailSource.return_unsent`."""
        self._source.return_unsent(delivery)


class ExchangeFailed(HopFailure):
    """An exchange failed, after what is in its tally."""

    def __init__(self, outcome: Outcome, tally: Tally) -> None:
        super().__init__(outcome)
        self.tally = tally


@implementer(ITurnReplies)
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
        self._turned: _Turned | None = None
        self._tally = Tally()

    async def run(self, source: IMailSource) -> Tally:
        """Hand over what `source` has, then ask for our mail and take it.

        Where the connection ends over our own mail, another one is for the peer's alone.  Raises
        ExchangeFailed with what the peer said, or what kept us from hearing it.
        """
        try:
            return await self._run(source)
        except HopFailure as failure:
            raise ExchangeFailed(failure.outcome, self._tally) from failure

    async def _run(self, source: IMailSource) -> Tally:
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

    async def _converse(self, source: IMailSource, turn: TurnRequest | None) -> bool:
        """Hold one conversation; returns whether our own mail left it whole.  Raises HopFailure."""
        peer = self._peer
        assert peer.connect is not None
        hop = replace(peer.connect, security=peer.tls, pin=peer.pin)
        waiting = _Waiting(source)
        counted = Counted(waiting, self._tally, self._changed)
        transfer = Transfer(counted, turn)
        try:
            await self._dialler.converse(hop, transfer)
        except HopFailure:
            if turn is None or not waiting.has_handed_out or transfer.has_sent_all:
                raise
            return False
        return transfer.has_sent_all

    def _turn(self) -> TurnRequest:
        peer = self._peer
        if peer.method == "etrn":
            commands = etrn_commands(peer.domains)
            return TurnRequest(commands, self, second_forms=etrn_by_queue(commands))
        silence = SILENT_KEEPALIVES * peer.keepalive
        depot = replace(self._reception.depot, accepted=self._accepted)
        reception = replace(self._reception, depot=depot, silence=silence)
        receiver = Receiver(reception, turned_peer=peer.name)
        command = "TURN" if peer.method == "turn" else atrn_command(peer.domains)
        self._turned = _Turned(receiver, self._tally, self._while_turned, silence)
        return TurnRequest([command], self, self._turned)

    def replied(self, reply: Reply) -> None:
        """See `ITurnReplies.replied`."""
        self._tally.replies.append(reply)
        self._changed()

    def _accepted(self, message: Message, session: Session) -> None:
        assert self._turned is not None
        self._turned.mail_came()
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
        silence: float,
    ) -> None:
        self._receiver = receiver
        self._tally = tally
        self._while_turned = while_turned
        self._silence = silence

    def mail_came(self) -> None:
        """A message was taken over."""
        self._quiet_since = self._channel.seconds()

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        tally, began = self._tally, channel.seconds()
        self._channel, self._quiet_since = channel, began
        channel.notice_loss(self._silence)
        tally.turned = True
        try:
            with self._while_turned:
                return await self._receiver.converse(channel)
        except ChannelTimeout:
            tally.lost, tally.trouble = True, DEAD
            return None
        except ChannelLost as lost:
            tally.lost, tally.trouble = True, f"the turned connection broke: {lost}"
            return None
        finally:
            ended = channel.seconds()
            tally.turned_for, tally.quiet_for = ended - began, ended - self._quiet_since


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


def etrn_by_queue(commands: Sequence[str]) -> Mapping[str, str]:
    """The form with ``#`` of each ETRN for a domain: the only one that Exim takes by itself."""
    return {command: command.replace(" ", " #", 1) for command in commands if " @" not in command}
