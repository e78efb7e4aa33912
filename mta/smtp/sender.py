"""The sender role, one straight coroutine (RFC 5321 section 3).

It takes its mail from an `IMailSource`: that of the queue, when we dialled; the mail held for a
peer, when that peer turned the connection.  Nothing else differs.

Where the peer allows it, commands run ahead of replies (RFC 2920, RFC 3030): with CHUNKING whole
messages go out before the replies to earlier ones have come, with PIPELINING the next envelope
follows the final dot, once the host has shown that it reads it there.  A long-distance link then
runs at line rate and not at one message a round trip.  A reply that may be the one to another
command is no verdict: the mail is sent again on another connection, one command at a time.
"""

from __future__ import annotations

from zope.interface import implementer

from mta.interfaces import IChannel, IMailSource, IRole
from mta.mail import Reply
from mta.session import ChannelLost
from mta.smtp.asking import Asking
from mta.smtp.dialogue import CONTENT, NOOP, PROBE, Dialogue, PeerClosing
from mta.smtp.errors import PeerFault
from mta.smtp.fit import Capabilities
from mta.smtp.opening import SenderConfig, open_session
from mta.smtp.outgoing import Outbox, Transaction
from mta.smtp.pipelining import Pipelining
from mta.smtp.transmission import Transmission
from mta.smtp.turn import TurnRequest, ask_for_turn

MAX_WEIGHT = 512 * 1024  # octets: in flight ahead of replies; 40 Mbit/s at 100 ms round trip
MAX_MESSAGES_AHEAD = 100  # messages: likewise; where the connection breaks, all are sent again


@implementer(IRole)
class Sender:
    """Sender-SMTP: one conversation, from the peer's greeting to QUIT.

    `converse` raises HopFailure where the peer can't be used, HandshakeFailed where it failed to
    begin TLS.  Each delivery taken from `source` is settled, also when the connection is lost;
    `failure` then tells why.  `has_sent_all`: there was nothing more to send, before it ended.
    """

    def __init__(
        self, source: IMailSource, config: SenderConfig, turn: TurnRequest | None = None
    ) -> None:
        self.failure: Reply | None = None
        self.has_sent_all = False
        self._source = source
        self._turn = turn
        self._config = config
        self._asking: Asking | None = None
        self._silent_since: float | None = None  # seconds of the channel, while no mail goes

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        self._channel = channel
        dialogue = self._dialogue = Dialogue(channel, self._config.watch)
        await open_session(dialogue, self._config)
        self._capabilities = self._peer_capabilities()
        self._outbox = Outbox(self._source, dialogue, self._capabilities, self._config.signer)
        self._transmission = Transmission(dialogue, self._capabilities, self._outbox)
        if self._config.questions is not None:
            self._asking = Asking(dialogue, self._capabilities, self._config.questions)
        try:
            await (self._send_by_bdat() if self._capabilities.streams else self._send_by_data())
        except PeerFault as error:
            dialogue.quit_at_once()
            self.failure = self._outbox.abandon(error, again=self._note_out_of_step())
            return None
        except (ChannelLost, OSError) as error:
            cause = await self._conclude_answered(error)
            if self._outbox.in_flight and isinstance(cause, ChannelLost):
                self._config.host.note_cut_off()
            self.failure = self._outbox.abandon(cause)
            return None
        self._outbox.return_waiting()
        self.has_sent_all = True
        if self._turn is not None and not channel.closing:
            return await ask_for_turn(dialogue, self._turn, reset_first=self._outbox.reset_needed)
        await dialogue.quit()
        return None

    def _peer_capabilities(self) -> Capabilities:
        extensions, tls, config = self._dialogue.extensions, self._channel.tls, self._config
        proved = tls is not None and (bool(tls.certificate) or config.proved)
        keeps_tls = proved and extensions.offers("REQUIRETLS")
        one_at_a_time = config.host.pipelining is Pipelining.STEPWISE
        told = extensions.attributes("XFORWARD") if config.tells_origins else ()
        return Capabilities(
            extensions, config.lmtp, keeps_tls, config.in_steps, one_at_a_time, told
        )

    def _learn(self, pipelining: Pipelining) -> None:
        self._config.host.learn(pipelining, self._channel.seconds())

    def _note_out_of_step(self) -> bool:
        """Note that the host is out of step; returns whether to retry."""
        if self._capabilities.may_lose_step:
            self._learn(Pipelining.STEPWISE)
        return self._capabilities.may_lose_step

    # --- by BDAT: whole messages ahead of the replies to others

    async def _send_by_bdat(self) -> None:
        outbox, transmission = self._outbox, self._transmission
        while True:
            if self._asking is not None and self._asking.is_due:
                await self._conclude_all()
                await self._ask(self._asking)
            transaction = await self._next()
            if transaction is None:
                if outbox.in_flight:
                    await self._conclude_all()
                elif not await self._wait_for_mail():
                    return
            elif transaction.weight > MAX_WEIGHT or (
                self._config.host.was_cut_off and not outbox.progress
            ):
                # So much is sent only to a peer that said it takes it, and so is content where the
                # last connection broke: what was sent whole, no other host may have at once.
                await self._conclude_all()
                await transmission.send_by_itself(transaction)
            else:
                await self._conclude_until(MAX_WEIGHT - transaction.weight)
                # It is not known yet in which state the messages in flight leave the peer.
                outbox.reset_needed = outbox.reset_needed or bool(outbox.in_flight)
                await transmission.begin(transaction)
                await transmission.contents.write_chunk(transaction)
                if self._config.host.pipelining is not Pipelining.AHEAD:
                    await self._conclude_all()

    async def _conclude_all(self) -> None:
        while self._outbox.in_flight:
            await self._conclude_first()

    async def _conclude_until(self, max_weight: int) -> None:
        """Read replies until at most that weight is in flight."""
        outbox = self._outbox
        while outbox.weight > max_weight or len(outbox.in_flight) >= MAX_MESSAGES_AHEAD:
            await self._conclude_first()

    async def _conclude_answered(self, error: Exception) -> Exception:
        """Read the replies to all messages before the one cut off.

        Returns what ended the conversation: `error`, unless the peer said 421 before it.
        """
        stage = self._dialogue.stage
        try:
            while stage is CONTENT and len(self._outbox.in_flight) > 1:
                await self._conclude_first()
        except PeerClosing as closing:
            error = closing if isinstance(error, ChannelLost) else error
        except (ChannelLost, PeerFault):
            pass
        self._dialogue.stage = stage
        return error

    async def _conclude_first(self) -> None:
        in_flight = self._outbox.in_flight
        transaction, following = in_flight[0], in_flight[1] if len(in_flight) > 1 else None
        await self._transmission.envelopes.read(transaction)
        await self._transmission.end(transaction, following)
        if transaction.refusal is None and self._dialogue.is_quiet:
            self._learn(Pipelining.AHEAD)  # all that was sent together was answered, and no more

    # --- by DATA: an envelope behind the last final dot, where the peer has shown that it may

    async def _send_by_data(self) -> None:
        ended: Transaction | None = None
        while True:
            if self._asking is not None and self._asking.is_due:
                if ended is not None:
                    await self._end(ended, None)
                    ended = None
                await self._ask(self._asking)
            transaction = await self._next()
            is_ahead = await self._end(ended, transaction) if ended is not None else False
            if transaction is None:
                if ended is None and not await self._wait_for_mail():
                    return
                ended = None
                continue
            if not is_ahead:
                await self._transmission.send_envelope(transaction)
            is_sent = await self._transmission.contents.write_data(transaction)
            ended = transaction if is_sent else None
            if not is_sent:
                self._transmission.conclude(transaction)

    async def _end(self, ended: Transaction, following: Transaction | None) -> bool:
        """End a message; returns whether the next one was begun ahead.

        Where it is not known whether the host reads what comes that early, RSET finds out: nothing
        is lost where it does not.
        """
        # With LMTP, a missing reply to content could not be told from one to what comes behind it.
        capabilities, transmission = self._capabilities, self._transmission
        may_be_ahead = following is not None and capabilities.pipelines and not capabilities.lmtp
        pipelining = self._config.host.pipelining
        is_ahead = may_be_ahead and pipelining is Pipelining.AHEAD
        is_probe = may_be_ahead and pipelining is Pipelining.UNKNOWN
        if is_ahead and following is not None:
            await transmission.begin(following, b"DATA\r\n")
        elif is_probe:
            self._learn(Pipelining.GROUPED)  # whatever comes of it, it is not done again
            await self._dialogue.send(b"RSET\r\n", 1)
        await transmission.end(ended, following if is_ahead else None)
        if is_probe:
            await self._read_probe()
        return is_ahead

    async def _read_probe(self) -> None:
        """Read the reply to RSET behind content, if one comes."""
        reply = await self._dialogue.reply(PROBE)
        if reply.code == 250:
            self._learn(Pipelining.AHEAD)
            self._outbox.reset_needed = False

    # --- the next mail, and what is asked before it

    async def _ask(self, asking: Asking) -> None:
        await asking.ask(reset_first=self._outbox.reset_needed)
        self._outbox.reset_needed = False
        self._silent_since = None

    async def _next(self) -> Transaction | None:
        transaction = await self._outbox.next()
        if transaction is not None:
            self._silent_since = None
        return transaction

    async def _wait_for_mail(self) -> bool:
        """Wait for mail, and keep the session alive by NOOP."""
        if self._outbox.is_full:
            return False
        channel = self._channel
        if self._silent_since is None:
            self._silent_since = channel.seconds()
        while True:
            try:
                await self._dialogue.ensure_quiet()
            except PeerClosing:
                return False
            left = self._silent_since + self._config.keepalive - channel.seconds()
            has_mail = await channel.wait_idle(self._source.wait(), left) if left > 0 else None
            if has_mail is not None:
                self._dialogue.was_idle = has_mail
                return has_mail
            if channel.closing:
                return False
            if channel.seconds() < self._silent_since + self._config.keepalive:
                continue  # the peer said something
            await self._dialogue.command(b"NOOP", NOOP)
            self._silent_since = channel.seconds()
