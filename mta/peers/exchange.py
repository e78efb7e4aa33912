"""One exchange with a peer that we dial.

Our mail is sent, the connection is turned, and the peer's mail is taken.  RFC 2645 section 5, RFC
821 section 3.8, RFC 1985.  Once the connection is turned, the peer is an MX for our domains and
nothing more: AUTH proved us to it, and nothing to us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from zope.interface import implementer

from mta.delivery.dialler import Dialler, Transfer
from mta.interfaces import ILinkWatch, IMailSource, ITurnReplies
from mta.mail import Outcome, Reply, Status
from mta.peers.interfaces import ITallyWatch
from mta.peers.tally import CountedSource, Tally, Unwatched
from mta.peers.turned_receiver import TurnedReceiver
from mta.queued import Delivery, HopFailure
from mta.session import LinkKind
from mta.settings import Peer
from mta.smtp.receiver import MAX_LINE
from mta.smtp.receiver_config import ReceiverConfig
from mta.smtp.turn import TurnRequest

NO_MAIL = 453  # RFC 2645 section 5.2.1: an answer, not a failure
NOT_IMPLEMENTED = frozenset({500, 502})
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
class _WaitingSource:
    """Lets mail wait on that a peer does not take there.

    It takes none at all on port 366 (RFC 2645 section 5); nothing is wrong with the message.
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

    `config` is what a receiver of ours needs; `watch` follows the tally;
    `while_turned` lasts as long as the turned connection, which is a link of this `kind`;
    `mailboxes` is the list of ours, `link_watch` hears of round trips.
    """

    def __init__(
        self,
        peer: Peer,
        dialler: Dialler,
        config: ReceiverConfig,
        watch: ITallyWatch | None = None,
        while_turned: AbstractContextManager[None] | None = None,
        mailboxes: bytes = b"",
        kind: LinkKind = LinkKind.MAIN,
        link_watch: ILinkWatch | None = None,
    ) -> None:
        self._peer = peer
        self._dialler = dialler
        self._config = config
        self._watch = watch or Unwatched()
        self._while_turned = while_turned or nullcontext()
        self._mailboxes = mailboxes
        self._kind = kind
        self._link_watch = link_watch
        self._tally = Tally()

    async def run(self, source: IMailSource) -> Tally:
        """Send what `source` has, then ask for our mail and take it.

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

    async def send(self, source: IMailSource) -> None:
        """Send what `source` has, and no more.  Raises HopFailure."""
        await self._converse(source, None)

    async def _converse(self, source: IMailSource, turn: TurnRequest | None) -> bool:
        """Hold one conversation; returns whether our own mail left it whole.  Raises HopFailure."""
        waiting = _WaitingSource(source)
        counted = CountedSource(waiting, self._tally, self._watch)
        transfer = Transfer(counted, turn, self._link_watch)
        try:
            await self._dialler.converse(self._peer.next_hop, transfer)
        except HopFailure:
            if turn is None or not waiting.has_handed_out or transfer.has_sent_all:
                raise
            return False
        return transfer.has_sent_all

    def _turn(self) -> TurnRequest:
        peer = self._peer
        if peer.method == "etrn":
            commands = etrn_commands(peer.domains)
            return TurnRequest(
                commands, self, second_forms=etrn_by_queue(commands), mailboxes=self._mailboxes
            )
        receiver = TurnedReceiver(peer, self._config, self._tally, self._watch, self._while_turned)
        command = "TURN" if peer.method == "turn" else atrn_command(peer.domains)
        return TurnRequest([command], self, receiver, mailboxes=self._mailboxes, kind=self._kind)

    def replied(self, reply: Reply) -> None:
        """See `ITurnReplies.replied`."""
        self._tally.replies.append(reply)
        self._watch.changed(self._tally)


def atrn_command(domains: Sequence[str]) -> str:
    """The ATRN for these domains; for all where it can't name them."""
    command = f"ATRN {','.join(domains)}"
    is_one_line = len(command) + 2 <= MAX_LINE
    if is_one_line and not any(domain.startswith(".") for domain in domains):
        return command
    return "ATRN"


def etrn_commands(domains: Sequence[str]) -> Sequence[str]:
    """An ETRN for each domain, ``@`` for subdomains (RFC 1985 section 5.3)."""
    return [
        f"ETRN @{domain[1:]}" if domain.startswith(".") else f"ETRN {domain}" for domain in domains
    ]


def etrn_by_queue(commands: Sequence[str]) -> Mapping[str, str]:
    """The form with ``#`` of each ETRN for a domain.

    It is the only one that Exim takes by itself.
    """
    return {command: command.replace(" ", " #", 1) for command in commands if " @" not in command}
