"""The sender role: one straight coroutine (RFC 5321 section 3, RFC 2920, RFC 3030).

It takes its mail from an `IMailSource`: the queue's, when we dialled out; the mail held
for a peer, when that peer turned the connection.  Nothing else differs.

Where the peer allows it, commands run ahead of replies: with CHUNKING whole messages go out
before the replies to earlier ones have come, with PIPELINING the next envelope follows the
final dot, once the host has shown that it reads it there.  A long-distance link then runs at line
rate and not at one message a round trip.  Where replies may not be those to what was asked, they
are no verdicts: the mail is sent again on another connection, one command at a time.
"""

from __future__ import annotations

from zope.interface import implementer

from mta.interfaces import IChannel, IMailSource, IRole
from mta.mail import Reply
from mta.session import ChannelLost
from mta.smtp.dialogue import CONTENT, NOOP, PROBE, Dialogue, PeerClosing
from mta.smtp.errors import PeerFault
from mta.smtp.fit import Capabilities
from mta.smtp.opening import SenderConfig, open_session
from mta.smtp.outgoing import Outbox, Transaction
from mta.smtp.pipelining import Pipelining
from mta.smtp.transmission import Transmission
from mta.smtp.turn import Turn, ask_for_turn

MAX_AHEAD = 512 * 1024  # octets on their way ahead of replies
MAX_MESSAGES_AHEAD = 100


@implementer(IRole)
class Sender:
    """Sender-SMTP: one conversation, from the peer's greeting to QUIT.

    `converse` raises HopFailure where the peer can't be used, HandshakeFailed where it failed to
    begin TLS.  Each delivery taken from `source` is settled, also when the connection is lost;
    `failure` then tells why.  `has_sent_all`: there was nothing more to send, before it ended.
    """

    def __init__(self, source: IMailSource, config: SenderConfig, turn: Turn | None = None) -> None:
        self.failure: Reply | None = None
        self.has_sent_all = False
        self._source = source
        self._turn = turn
        self._config = config
        self._silent_since: float | None = None  # in seconds of the channel, while no mail goes

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        self._channel = channel
        dialogue = self._dialogue = Dialogue(channel)
        await open_session(dialogue, self._config)
        self._capabilities = self._found()
        self._outbox = Outbox(self._source, dialogue, self._capabilities)
        self._transmission = Transmission(dialogue, self._capabilities, self._outbox)
        try:
            await (self._stream() if self._capabilities.streams else self._deliver())
        except PeerFault as error:
            dialogue.quit_at_once()
            self.failure = self._outbox.abandon(error, again=self._lose_step())
            return None
        except (ChannelLost, OSError) as error:
            cause = await self._conclude_answered(error)
            if self._outbox.begun and isinstance(cause, ChannelLost):
                self._config.host.forget_ahead()
            self.failure = self._outbox.abandon(cause)
            return None
        self._outbox.leave()
        self.has_sent_all = True
        if self._turn is not None and not channel.closing:
            return await ask_for_turn(dialogue, self._turn, reset_first=self._outbox.reset_needed)
        await dialogue.quit()
        return None

    def _found(self) -> Capabilities:
        """What the peer can take, by what it offered and what is known of it."""
        extensions, tls, config = self._dialogue.extensions, self._channel.tls, self._config
        proved = tls is not None and (bool(tls.certificate) or config.proved)
        keeps_tls = proved and extensions.offers("REQUIRETLS")
        one_at_a_time = config.host.pipelining is Pipelining.STEPWISE
        return Capabilities(extensions, config.lmtp, keeps_tls, config.in_steps, one_at_a_time)

    def _learn(self, pipelining: Pipelining) -> None:
        self._config.host.learn(pipelining, self._channel.seconds())

    def _lose_step(self) -> bool:
        """Learn that the host was out of step; whether another connection goes about it better."""
        if self._capabilities.may_lose_step:
            self._learn(Pipelining.STEPWISE)
        return self._capabilities.may_lose_step

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
            host = self._config.host
            if weight > MAX_AHEAD or (host.breaks and not outbox.progress):
                # So much is sent only to a peer that said it takes it, and so is content where the
                # last connection broke: what was sent whole, no other host may have at once.
                await self._catch_up(-1)
                await self._begin(transaction, b"")
                await transmission.read_envelope(transaction)
                if transaction.refusal is None and transaction.accepted:
                    await transmission.write_chunk(transaction)
                    await transmission.end(transaction)
                self._conclude(transaction)
            else:
                await self._catch_up(MAX_AHEAD - weight)
                # Nobody knows yet in which state the messages on their way leave the peer.
                outbox.reset_needed = outbox.reset_needed or bool(outbox.begun)
                await self._begin(transaction, b"")
                await transmission.write_chunk(transaction)
                if self._config.host.pipelining is not Pipelining.AHEAD:
                    await self._catch_up(-1)

    async def _catch_up(self, most_ahead: int) -> None:
        """Read replies until at most that many octets are on their way; below 0: no message is."""
        outbox = self._outbox
        while outbox.begun and (
            outbox.ahead > most_ahead or len(outbox.begun) >= MAX_MESSAGES_AHEAD
        ):
            await self._conclude_first()

    async def _conclude_answered(self, error: Exception) -> Exception:
        """Read the replies to all before the message whose content can't be sent to its end.

        Returns what ended the conversation: `error`, unless the peer said 421 before it.
        """
        step = self._dialogue.step
        try:
            while step is CONTENT and len(self._outbox.begun) > 1:
                await self._conclude_first()
        except PeerClosing as closing:
            error = closing if isinstance(error, ChannelLost) else error
        except (ChannelLost, PeerFault):
            pass
        self._dialogue.step = step
        return error

    async def _conclude_first(self) -> None:
        begun = self._outbox.begun
        transaction, following = begun[0], begun[1] if len(begun) > 1 else None
        await self._transmission.read_envelope(transaction)
        await self._transmission.end(transaction, following)
        self._conclude(transaction)
        if transaction.refusal is None and self._dialogue.is_quiet:
            self._learn(Pipelining.AHEAD)  # all that was sent together was answered, and no more

    # --- mail, one message after the other

    async def _deliver(self) -> None:
        """With DATA: an envelope follows the last final dot where the peer has shown it may."""
        ended: Transaction | None = None
        while True:
            transaction = await self._outbox.next()
            is_ahead = await self._end(ended, transaction) if ended is not None else False
            if transaction is None:
                if ended is None and not await self._more():
                    return
                ended = None
                continue
            ended = transaction if await self._send(transaction, is_ahead=is_ahead) else None
            if ended is None:
                self._conclude(transaction)

    async def _send(self, transaction: Transaction, *, is_ahead: bool) -> bool:
        """One message but for the reply to its content; whether content was sent.

        `is_ahead`: its envelope was sent, and answered, with the end of the message before it.
        """
        transmission = self._transmission
        if not self._capabilities.pipelines:
            await self._dialogue.check()
            self._enter(transaction)
            return await transmission.step_by_step(transaction)
        if not is_ahead:
            await self._begin(transaction, b"DATA\r\n")
            await transmission.read_envelope(transaction)
            await transmission.read_data(transaction)
        return await transmission.write_data(transaction)

    async def _end(self, ended: Transaction, following: Transaction | None) -> bool:
        """The reply to the content of a message; whether the next one was begun ahead of it.

        Where nobody knows whether the host reads what comes that early, RSET finds out: nothing is
        lost where it does not.
        """
        # With LMTP, a missing reply to content could not be told from one to what comes behind it.
        capabilities = self._capabilities
        may_be_ahead = following is not None and capabilities.pipelines and not capabilities.lmtp
        pipelining = self._config.host.pipelining
        is_ahead = may_be_ahead and pipelining is Pipelining.AHEAD
        is_probe = may_be_ahead and pipelining is Pipelining.UNKNOWN
        if is_ahead and following is not None:
            await self._begin(following, b"DATA\r\n")
        elif is_probe:
            self._learn(Pipelining.GROUPED)  # whatever comes of it, it is not done again
            await self._dialogue.send(b"RSET\r\n", 1)
        await self._transmission.end(ended, following if is_ahead else None)
        self._conclude(ended)
        if is_probe:
            await self._probe()
        return is_ahead

    async def _probe(self) -> None:
        """The reply to RSET behind content; none comes from a host that dropped it."""
        reply = await self._dialogue.reply(PROBE)
        if reply.code == 250:
            self._learn(Pipelining.AHEAD)
            self._outbox.reset_needed = False

    # --- what both manners share

    async def _begin(self, transaction: Transaction, last: bytes) -> None:
        """Write the envelope in one group; `last` is the command that ends the group."""
        await self._dialogue.check()
        self._enter(transaction)
        await self._transmission.write_envelope(transaction, last)

    def _enter(self, transaction: Transaction) -> None:
        self._silent_since = None
        self._outbox.begin(transaction)

    def _conclude(self, transaction: Transaction) -> None:
        self._transmission.verify(transaction)
        self._outbox.conclude(transaction)

    async def _more(self) -> bool:
        """Wait for more mail; now and then a NOOP asks whether the peer is still there."""
        if self._outbox.is_full:
            return False
        channel = self._channel
        if self._silent_since is None:
            self._silent_since = channel.seconds()
        while True:
            try:
                await self._dialogue.check()
            except PeerClosing:
                return False
            left = self._silent_since + self._config.keepalive - channel.seconds()
            there_is = await channel.wait_idle(self._source.wait(), left) if left > 0 else None
            if there_is is not None:
                self._dialogue.is_unheard = there_is
                return there_is
            if channel.closing:
                return False
            if channel.seconds() < self._silent_since + self._config.keepalive:
                continue  # the peer said something
            await self._dialogue.command(b"NOOP", NOOP)
            self._silent_since = channel.seconds()
