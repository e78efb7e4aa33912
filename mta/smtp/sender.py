"""The sender role: one straight coroutine (RFC 5321 section 3, RFC 2920, RFC 3030).

It takes its mail from an `IMailSource`: the queue's, when we dialled out; the mail held
for a peer, when that peer turned the connection.  Nothing else differs.

Where the peer allows it, commands run ahead of replies: with CHUNKING whole messages go out
before the replies to earlier ones have come, with PIPELINING the next envelope follows the
final dot.  A long-distance link then runs at line rate and not at one message a round trip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from zope.interface import implementer

from mta.interfaces import ChannelLost, IChannel, IMailSource, IRole
from mta.mail import Reply
from mta.smtp.dialogue import MAIL, NOOP, TURN, Dialogue, PeerClosing
from mta.smtp.errors import PeerFault
from mta.smtp.fit import Capabilities
from mta.smtp.opening import SenderConfig, open_session
from mta.smtp.outgoing import Outbox, Transaction
from mta.smtp.transmission import Transmission

MAX_AHEAD = 512 * 1024  # octets on their way ahead of replies
MAX_MESSAGES_AHEAD = 100
BAD_SEQUENCE = 503  # RFC 5321 section 4.2.2


@dataclass(frozen=True, slots=True)
class Turn:
    """What a sender asks for when its mail is sent: TURN, ATRN or ETRNs, one after the other.

    `on_reply` is called with each reply.  After a positive one to TURN or ATRN, `successor` takes
    the connection (RFC 821 section 3.8, RFC 2645 section 5.3).
    """

    commands: Sequence[str]
    on_reply: Callable[[Reply], None]
    successor: IRole | None = None


@implementer(IRole)
class Sender:
    """Sender-SMTP: one conversation, from the peer's greeting to QUIT.

    `converse` raises HopFailure where the peer can't be used, HandshakeFailed where it failed to
    begin TLS.  Each delivery taken from `source` is settled, also when the connection is lost;
    `failure` then tells why.
    """

    def __init__(self, source: IMailSource, config: SenderConfig, turn: Turn | None = None) -> None:
        self.failure: Reply | None = None
        self._source = source
        self._turn = turn
        self._config = config
        self._silent_since: float | None = None  # in seconds of the channel, while no mail goes

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        self._channel = channel
        dialogue = self._dialogue = Dialogue(channel)
        await open_session(dialogue, self._config)
        capabilities = self._capabilities()
        self._outbox = Outbox(self._source, dialogue, capabilities)
        self._transmission = Transmission(dialogue, capabilities, self._outbox)
        try:
            await (self._stream() if capabilities.streams else self._deliver())
        except OSError as error:
            with suppress(ChannelLost, PeerFault):
                await self._catch_up_before_last()
            self.failure = self._outbox.abandon(error)
            return None
        except PeerFault as error:
            dialogue.quit_at_once()
            self.failure = self._outbox.abandon(error)
            return None
        except ChannelLost as error:
            self.failure = self._outbox.abandon(error)
            return None
        if self._turn is not None and not channel.closing:
            return await self._part(self._turn)
        await dialogue.quit()
        return None

    def _capabilities(self) -> Capabilities:
        extensions, secured = self._dialogue.extensions, self._channel.secured
        proved = secured is not None and (bool(secured.certificate) or self._config.proved)
        keeps_tls = proved and extensions.offers("REQUIRETLS")
        config = self._config
        return Capabilities(extensions, config.lmtp, keeps_tls, config.in_steps)

    # --- mail, commands ahead of replies

    async def _stream(self) -> None:
        """With CHUNKING: whole small messages go out ahead of the replies to others."""
        outbox, transmission = self._outbox, self._transmission
        while True:
            transaction = await outbox.next()
            if transaction is None:
                if outbox.begun:
                    await self._catch_up(-1)
                elif not await self._more():
                    return
                continue
            weight = transaction.weight
            if weight > MAX_AHEAD:
                # So much is sent only to a peer that said it takes it.
                await self._catch_up(-1)
                self._begin(transaction, b"")
                await transmission.read_envelope(transaction)
                if transaction.refusal is None and transaction.accepted:
                    await transmission.write_chunk(transaction)
                    await transmission.end(transaction)
                outbox.conclude(transaction)
            else:
                await self._catch_up(MAX_AHEAD - weight)
                # Nobody knows yet in which state the messages on their way leave the peer.
                outbox.reset_needed = outbox.reset_needed or bool(outbox.begun)
                self._begin(transaction, b"")
                await transmission.write_chunk(transaction)

    async def _catch_up(self, most_ahead: int) -> None:
        """Read replies until at most that many octets are on their way; below 0: no message is."""
        outbox = self._outbox
        while outbox.begun and (
            outbox.ahead > most_ahead or len(outbox.begun) >= MAX_MESSAGES_AHEAD
        ):
            await self._conclude_first()

    async def _catch_up_before_last(self) -> None:
        """Read the replies to all that is on its way before the last: nothing is wrong with it."""
        while len(self._outbox.begun) > 1:
            await self._conclude_first()

    async def _conclude_first(self) -> None:
        transaction = self._outbox.begun[0]
        await self._transmission.read_envelope(transaction)
        await self._transmission.end(transaction)
        self._outbox.conclude(transaction)

    # --- mail, one message after the other

    async def _deliver(self) -> None:
        """With DATA: where the peer has PIPELINING, an envelope follows the last final dot."""
        outbox, transmission = self._outbox, self._transmission
        pipelines = self._dialogue.extensions.offers("PIPELINING")
        ended: Transaction | None = None
        while True:
            transaction = await outbox.next()
            if transaction is None and ended is None:
                if not await self._more():
                    return
                continue
            if transaction is not None and pipelines:
                self._begin(transaction, b"DATA\r\n")
            if ended is not None:
                await transmission.end(ended)
                outbox.conclude(ended)
                ended = None
            if transaction is None:
                continue
            if pipelines:
                await transmission.read_envelope(transaction)
                goes_on = await transmission.read_data(transaction)
            else:
                self._enter(transaction)
                goes_on = await transmission.step_by_step(transaction)
            if goes_on:
                ended = transaction
            else:
                outbox.conclude(transaction)

    # --- what both manners share

    def _begin(self, transaction: Transaction, last: bytes) -> None:
        """Write the envelope in one group; `last` is the command that ends the group."""
        self._enter(transaction)
        self._transmission.write_envelope(transaction, last)

    def _enter(self, transaction: Transaction) -> None:
        self._silent_since = None
        self._outbox.begin(transaction)

    async def _more(self) -> bool:
        """Wait for more mail; now and then a NOOP asks whether the peer is still there."""
        if self._outbox.is_full:
            return False
        channel = self._channel
        if self._silent_since is None:
            self._silent_since = channel.seconds()
        while True:
            left = self._silent_since + self._config.keepalive - channel.seconds()
            there_is = await channel.doze(self._source.more(), left) if left > 0 else None
            if there_is is not None:
                self._dialogue.is_unheard = there_is
                return there_is
            if channel.closing:
                return False
            if len(channel.wire):
                return await self._unasked()
            await self._dialogue.command(b"NOOP", NOOP)
            self._silent_since = channel.seconds()

    async def _unasked(self) -> bool:
        """A reply to nothing: 421, as the peer closes (RFC 5321 section 3.8), or a fault."""
        try:
            reply = await self._dialogue.reply(NOOP)
        except PeerClosing:
            return False
        raise PeerFault(f"a reply to nothing: {reply}")

    async def _part(self, turn: Turn) -> IRole | None:
        """Ask for the turn; the role to take next."""
        if self._outbox.reset_needed:
            await self._reset()
        for command in turn.commands:
            reply = await self._dialogue.command(command.encode(), TURN)
            if reply.code == BAD_SEQUENCE:
                # Some transaction may be open, whatever we know: it would be in the way.
                await self._reset()
                reply = await self._dialogue.command(command.encode(), TURN)
            if turn.successor is not None and reply.code == 250:
                if len(self._channel.wire):
                    # Nothing may come before our greeting: it could only pretend to be commands.
                    raise PeerFault("octets after the reply that turned the connection")
                turn.on_reply(reply)
                return turn.successor
            turn.on_reply(reply)
        await self._dialogue.quit()
        return None

    async def _reset(self) -> None:
        """End a transaction that may be open; a peer that takes no mail need not know RSET."""
        await self._dialogue.command(b"RSET", MAIL)
        self._outbox.reset_needed = False
