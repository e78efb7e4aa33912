"""The sender role: one straight coroutine (RFC 5321 section 3, RFC 2920, RFC 3030).

It takes its mail from an `IMailSource`: the queue's, when we dialled out; the mail held
for a peer, when that peer turned the connection.  Nothing else differs.

Where the peer allows it, commands run ahead of replies: with CHUNKING whole messages go out
before the replies to earlier ones have come, with PIPELINING the next envelope follows the
final dot.  A long-distance link then runs at line rate and not at one message a round trip.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from zope.interface import implementer

from mta.interfaces import (
    ChannelLost,
    Delivery,
    HandshakeFailed,
    HopFailure,
    IChannel,
    IContent,
    IMailSource,
    IRole,
)
from mta.mail import Body, Outcome, Reply, Security, Status
from mta.smtp import grammar, replies, sasl, sevenbit
from mta.smtp.content import DotWriter
from mta.smtp.errors import LocalFault, PeerFault

MINUTE = 60.0  # seconds
REPLY_LINE = 2048  # octets; RFC 5321 section 4.5.3.1.5 allows 512, some peers send more
MOST_AHEAD = 512 * 1024  # octets on their way ahead of replies
MOST_MESSAGES_AHEAD = 100
MOST_TRANSACTIONS = 10_000  # on one connection, where the peer names no MAILMAX (RFC 9422)
USUAL_RCPTMAX = 100  # recipients that any server takes, RFC 5321 section 4.5.3.1.8
MOST_RECIPIENTS = 1000  # of one transaction, where the peer names a higher RCPTMAX
REPLY_WEIGHT = 512  # octets that a reply may have, RFC 5321 section 4.5.3.1.5


@dataclass(frozen=True, slots=True)
class Step:
    """One exchange with the peer: how long it may take, and how a failure is told."""

    timeout: float  # seconds, RFC 5321 section 4.5.3.2
    phrase: str


GREETING = Step(5 * MINUTE, "while waiting for the greeting")
HELLO = Step(5 * MINUTE, "in reply to EHLO")
TLS = Step(5 * MINUTE, "in reply to STARTTLS")
AUTH = Step(5 * MINUTE, "in reply to AUTH")
MAIL = Step(5 * MINUTE, "in reply to MAIL")
RCPT = Step(5 * MINUTE, "in reply to RCPT")
DATA = Step(2 * MINUTE, "in reply to DATA")
CONTENT = Step(3 * MINUTE, "while sending content")
END = Step(10 * MINUTE, "after the end of content: the message may be sent more than once")
TURN = Step(10 * MINUTE, "in reply to the request for our mail")  # RFC 2645 section 5.2.1
NOOP = Step(30.0, "in reply to NOOP")
QUIT = Step(5.0, "in reply to QUIT")

NO_MECHANISM = Reply(454, "4.7.4", ("The server offers no way to log in that is safe",))
NO_PROOF = Reply(
    454,
    "4.7.4",
    ("The server wants our password, and its certificate does not prove who it is",),
)
NO_TLS = Reply(451, "4.7.5", ("The server does not offer the TLS that we demand",))


@dataclass(frozen=True, slots=True)
class Demands:
    """What a sender says of itself and demands of its peer before any mail flows.

    `proved`: the peer proved who it is before this role began.
    """

    hostname: str
    lmtp: bool = False
    security: Security = Security.OPPORTUNISTIC
    user: str = ""
    secret: str = field(default="", repr=False)
    keepalive: float = MINUTE  # seconds between NOOPs while no mail is there
    derive: sasl.Derive = sasl.derive
    proved: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """What a sender asks for when its mail is sent: TURN, ATRN or ETRNs, one after the other.

    `told` hears each reply.  After a positive one to TURN or ATRN, `successor` takes the
    connection (RFC 821 section 3.8, RFC 2645 section 5.3).
    """

    commands: Sequence[str]
    told: Callable[[Reply], None]
    successor: IRole | None = None


class _Consignment:
    """A delivery that was taken from the source, and the outcomes it has so far."""

    __slots__ = ("body", "content", "delivery", "outcomes")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.content: IContent = delivery.message.content
        self.body = Body.SEVEN_BIT
        self.outcomes: list[Outcome | None] = [None] * len(delivery.targets)


@dataclass(slots=True)
class _Transaction:
    """MAIL to the end of content, for some targets of a consignment.

    `places` are the targets' places in the delivery, `rejected` holds the replies to those
    that RCPT refused, `refusal` the reply that refused all.
    """

    consignment: _Consignment
    places: Sequence[int]
    after_reset: bool = False
    rejected: dict[int, Reply] = field(default_factory=dict)
    refusal: Reply | None = None

    @property
    def accepted(self) -> list[int]:
        """The places that RCPT took."""
        return [place for place in self.places if place not in self.rejected]

    @property
    def weight(self) -> int:
        """Octets on their way because of it: replies that nobody reads would block the peer."""
        return self.consignment.content.size + REPLY_WEIGHT * len(self.places)


class _Closing(ChannelLost):
    """The peer said 421: it closes the channel (RFC 5321 section 3.8)."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


@implementer(IRole)
class Sender:
    """Sender-SMTP: one conversation, from the peer's greeting to QUIT.

    `converse` raises HopFailure where the peer can't be used, HandshakeFailed where it failed to
    begin TLS.  Each delivery taken from `mail` is settled, also when the connection is lost;
    `trouble` then tells why.
    """

    def __init__(self, mail: IMailSource, demands: Demands, turn: Turn | None = None) -> None:
        self.trouble: Reply | None = None
        self._mail = mail
        self._turn = turn
        self._demands = demands
        self._extensions: Mapping[str, str] = {}
        self._remote = ""
        self._step = GREETING
        self._waiting: deque[tuple[_Consignment, Sequence[int]]] = deque()
        self._begun: deque[_Transaction] = deque()  # written, in whole or part, not concluded
        self._ahead = 0  # the weight of all in `_begun`
        self._reset_needed = False
        self._transactions = 0
        self._silent_since: float | None = None  # in seconds of the channel, while no mail goes
        self._rested = False  # and the peer has said nothing since: it may have gone meanwhile
        self._progress = False  # whether this conversation settled anything in the peer's words

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        self._channel = channel
        try:
            await self._open()
            if self._streams:
                await self._stream()
            else:
                await self._deliver()
        except HandshakeFailed:
            raise  # nothing has begun, and without TLS it may go better
        except (ChannelLost, PeerFault, LocalFault, OSError) as error:
            self._abandon(error)
            return None
        if self._turn is not None and not channel.closing:
            return await self._part(self._turn)
        await self._quit()
        return None

    # --- before any mail

    async def _open(self) -> None:
        demands = self._demands
        self._demand(await self._reply(GREETING), 220)
        await self._hello()
        if self._channel.secured is None and demands.security is not Security.OFF:
            await self._start_tls()
        if demands.user:
            await self._authenticate()

    async def _hello(self) -> None:
        hostname = self._demands.hostname.encode()
        verb = b"LHLO " if self._demands.lmtp else b"EHLO "
        reply = await self._command(verb + hostname, HELLO)
        self._extensions = {}
        if reply.code == 250:
            keywords = (line.split(None, 1) for line in reply.lines[1:] if line.strip())
            self._extensions = {first.upper(): "".join(rest) for first, *rest in keywords}
        elif not self._demands.lmtp:
            reply = await self._command(b"HELO " + hostname, HELLO)
        self._demand(reply, 250)
        self._remote = (reply.text.split() or [self._channel.peer])[0]

    async def _start_tls(self) -> None:
        if self._offered("STARTTLS"):
            reply = await self._command(b"STARTTLS", TLS)
            if reply.code == 220:
                await self._channel.start_tls()
                await self._hello()
                return
        if self._demands.security is Security.VERIFY:
            raise HopFailure(Outcome(Status.DEFERRED, NO_TLS, self._remote))

    async def _authenticate(self) -> None:
        """Prove who we are, by the strongest means that is safe here (RFC 4954)."""
        demands, secured = self._demands, self._channel.secured
        offers = self._extensions.get("AUTH", "").split()
        mechanism = sasl.strongest(offers, secured, demands.secret)
        if mechanism is None:
            wants_it = secured is not None and not sasl.NEEDS_TLS.isdisjoint(offers)
            reply = NO_PROOF if wants_it else NO_MECHANISM
            raise HopFailure(Outcome(Status.DEFERRED, reply, self._remote))
        opening = f"AUTH {mechanism}".encode()

        async def exchange(response: bytes | None) -> bytes | None:
            nonlocal opening
            encoded = b"" if response is None else b64encode(response)
            if opening:
                line = opening + b" " + (encoded or b"=") if response is not None else opening
                opening = b""
            else:
                line = encoded
            reply = await self._command(line, AUTH)
            if reply.code == 235:
                return None
            self._demand(reply, 334)
            return b64decode(reply.text)

        bindings = secured.bindings if secured else sasl.NO_BINDINGS
        try:
            await sasl.respond(
                mechanism,
                demands.user,
                demands.secret,
                exchange,
                bindings=bindings,
                derive=demands.derive,
            )
        except (sasl.AuthenticationFailed, ValueError) as error:
            reply = Reply(454, "4.7.0", (f"Authentication failed: {error}",))
            raise HopFailure(Outcome(Status.DEFERRED, reply, self._remote)) from error

    def _offered(self, *keywords: str) -> bool:
        return all(keyword in self._extensions for keyword in keywords)

    @property
    def _keeps_tls(self) -> bool:
        """Whether the peer may have mail that must not travel without TLS (RFC 8689)."""
        secured = self._channel.secured
        proved = secured is not None and (bool(secured.certificate) or self._demands.proved)
        return proved and self._offered("REQUIRETLS")

    @property
    def _streams(self) -> bool:
        return self._offered("PIPELINING", "CHUNKING") and not self._demands.lmtp

    def _limit(self, name: str, usual: int) -> int:
        """A value of the LIMITS extension (RFC 9422)."""
        for limit in self._extensions.get("LIMITS", "").split():
            key, _, value = limit.partition("=")
            if key.upper() == name and value.isdecimal() and int(value) > 0:
                return int(value[:9])
        return usual

    # --- mail, commands ahead of replies

    async def _stream(self) -> None:
        """With CHUNKING: whole small messages go out ahead of the replies to others."""
        while True:
            transaction = await self._next()
            if transaction is None:
                if self._begun:
                    await self._catch_up(-1)
                elif not await self._more():
                    return
                continue
            weight = transaction.weight
            if weight > MOST_AHEAD:
                # So much is sent only to a peer that said it takes it.
                await self._catch_up(-1)
                self._begin(transaction, b"")
                await self._read_envelope(transaction)
                if transaction.refusal is None and transaction.accepted:
                    await self._write_chunk(transaction)
                    await self._end(transaction)
                self._conclude(transaction)
            else:
                await self._catch_up(MOST_AHEAD - weight)
                # Nobody knows yet in which state the messages on their way leave the peer.
                self._reset_needed = self._reset_needed or bool(self._begun)
                self._begin(transaction, b"")
                await self._write_chunk(transaction)

    async def _catch_up(self, most_ahead: int) -> None:
        """Read replies until at most that many octets are on their way; below 0: no message is."""
        while self._begun and (self._ahead > most_ahead or len(self._begun) >= MOST_MESSAGES_AHEAD):
            transaction = self._begun[0]
            await self._read_envelope(transaction)
            await self._end(transaction)
            self._conclude(transaction)

    async def _write_chunk(self, transaction: _Transaction) -> None:
        content = transaction.consignment.content
        self._channel.write(b"BDAT %d LAST\r\n" % content.size)
        await self._write_content(content, None)

    # --- mail, one message after the other

    async def _deliver(self) -> None:
        """With DATA: where the peer has PIPELINING, an envelope follows the last final dot."""
        ended: _Transaction | None = None
        while True:
            transaction = await self._next()
            if transaction is None and ended is None:
                if not await self._more():
                    return
                continue
            if transaction is not None and self._offered("PIPELINING"):
                self._begin(transaction, b"DATA\r\n")
            if ended is not None:
                await self._end(ended)
                self._conclude(ended)
                ended = None
            if transaction is None:
                continue
            if self._offered("PIPELINING"):
                await self._read_envelope(transaction)
                goes_on = await self._read_data(transaction)
            else:
                goes_on = await self._step_by_step(transaction)
            if goes_on:
                ended = transaction
            else:
                self._conclude(transaction)

    async def _step_by_step(self, transaction: _Transaction) -> bool:
        """The envelope for a peer without PIPELINING; whether content was sent."""
        self._enter(transaction)
        if transaction.after_reset:
            await self._command(b"RSET", MAIL)
        mail, *rcpts = self._envelope(transaction)
        self._channel.write(mail)
        await self._read_mail(transaction)
        if transaction.refusal is not None:
            return False
        for place, rcpt in zip(transaction.places, rcpts, strict=True):
            self._channel.write(rcpt)
            await self._read_rcpt(transaction, place)
        if not transaction.accepted:
            return False
        self._channel.write(b"DATA\r\n")
        return await self._read_data(transaction)

    async def _read_data(self, transaction: _Transaction) -> bool:
        """The reply to DATA, and the content after it; whether content was sent."""
        reply = await self._reply(DATA)
        if reply.code != 354:
            self._refuse(transaction, reply)
            return False
        if transaction.refusal is not None or not transaction.accepted:
            # RFC 2920 section 3.1: content must follow, and nobody is to get it.
            self._channel.write(b".\r\n")
            if not self._demands.lmtp:
                await self._reply(END)
            return False
        await self._write_content(transaction.consignment.content, DotWriter())
        return True

    # --- what both manners share

    def _begin(self, transaction: _Transaction, last: bytes) -> None:
        """Write the envelope in one group; `last` is the command that ends the group."""
        self._enter(transaction)
        reset = b"RSET\r\n" if transaction.after_reset else b""
        self._channel.write(reset + b"".join(self._envelope(transaction)) + last)

    def _enter(self, transaction: _Transaction) -> None:
        self._waiting.popleft()
        self._transactions += 1
        self._silent_since = None
        transaction.after_reset = self._reset_needed
        self._reset_needed = False
        self._begun.append(transaction)
        self._ahead += transaction.weight

    def _envelope(self, transaction: _Transaction) -> list[bytes]:
        """MAIL and the RCPTs."""
        consignment = transaction.consignment
        delivery = consignment.delivery
        envelope = delivery.message.envelope
        parameters = []
        if self._offered("SIZE"):
            parameters.append(f"SIZE={consignment.content.size}")
        if consignment.body is not Body.SEVEN_BIT:
            parameters.append(f"BODY={consignment.body.value}")
        if envelope.smtputf8 and self._offered("SMTPUTF8"):
            parameters.append("SMTPUTF8")
        if envelope.require_tls and self._keeps_tls:
            parameters.append("REQUIRETLS")
        if self._offered("DSN"):
            if envelope.ret:
                parameters.append(f"RET={envelope.ret}")
            if envelope.envid:
                parameters.append(f"ENVID={grammar.encode_xtext(envelope.envid)}")
        commands = [grammar.mail_command(envelope.reverse_path, parameters)]
        for place in transaction.places:
            target = delivery.targets[place]
            recipient = delivery.recipient(target)
            parameters = []
            if self._offered("DSN"):
                if recipient.notify:
                    conditions = sorted(condition.value for condition in recipient.notify)
                    parameters.append("NOTIFY=" + ",".join(conditions))
                if recipient.original:
                    parameters.append(f"ORCPT={grammar.encode_original(recipient.original)}")
            commands.append(grammar.rcpt_command(target.address, parameters))
        return commands

    async def _read_envelope(self, transaction: _Transaction) -> None:
        """The replies to one group, up to the last RCPT."""
        if transaction.after_reset:
            await self._reply(MAIL)
        await self._read_mail(transaction)
        for place in transaction.places:
            await self._read_rcpt(transaction, place)

    async def _read_mail(self, transaction: _Transaction) -> None:
        reply = await self._reply(MAIL)
        if reply.code // 100 != 2:
            self._refuse(transaction, reply)

    async def _read_rcpt(self, transaction: _Transaction, place: int) -> None:
        reply = await self._reply(RCPT)
        if reply.code // 100 != 2 and transaction.refusal is None:
            transaction.rejected[place] = reply

    def _refuse(self, transaction: _Transaction, reply: Reply) -> None:
        """The first refusal says why; what follows it is only its consequence."""
        if transaction.refusal is None:
            transaction.refusal = reply
        self._reset_needed = True

    async def _write_content(self, content: IContent, dots: DotWriter | None) -> None:
        """The octets of content, with dot stuffing where they go by DATA."""
        self._step = CONTENT
        async for piece in content.pieces():
            self._channel.write(dots.encode(piece) if dots else piece)
            await self._channel.drain(CONTENT.timeout)
        if dots:
            self._channel.write(dots.end())

    async def _end(self, transaction: _Transaction) -> None:
        """The reply to content: one, or with LMTP one for each recipient that RCPT took."""
        if not self._demands.lmtp:
            reply = await self._reply(END)
            if reply.code // 100 != 2:
                self._refuse(transaction, reply)
            else:
                self._deliver_to(transaction, transaction.accepted, reply)
            return
        for place in transaction.accepted:
            reply = await self._reply(END)
            if reply.code // 100 == 2:
                self._deliver_to(transaction, [place], reply)
            else:
                transaction.consignment.outcomes[place] = refused(reply, self._remote)

    def _deliver_to(self, transaction: _Transaction, places: Sequence[int], reply: Reply) -> None:
        if transaction.refusal is not None:
            return
        status = Status.DELIVERED if self._demands.lmtp else Status.RELAYED
        for place in places:
            transaction.consignment.outcomes[place] = Outcome(
                status, reply, self._remote, self._offered("DSN")
            )

    def _conclude(self, transaction: _Transaction) -> None:
        """All replies to a transaction are there."""
        self._begun.remove(transaction)
        self._ahead -= transaction.weight
        self._progress = True
        consignment = transaction.consignment
        again = []
        for place in transaction.places:
            if consignment.outcomes[place] is not None:
                continue
            rejected = transaction.rejected.get(place)
            reply = rejected or transaction.refusal
            assert reply is not None
            too_many = reply.code == 452 and place in transaction.rejected
            if too_many and transaction.accepted:
                again.append(place)  # RFC 5321 section 4.5.3.1.10
            else:
                outcome = refused(reply, self._remote)
                consignment.outcomes[place] = replace(outcome, strains=rejected is None)
        if not transaction.accepted:
            self._reset_needed = True
        if again:
            self._waiting.append((consignment, again))
        self._settle(consignment)

    def _settle(self, consignment: _Consignment) -> None:
        outcomes = [outcome for outcome in consignment.outcomes if outcome is not None]
        if len(outcomes) == len(consignment.outcomes):
            self._mail.settle(consignment.delivery, outcomes)

    # --- taking mail

    async def _next(self) -> _Transaction | None:
        """What to send next; None: nothing now, or no more on this connection."""
        while not self._waiting:
            if self._is_full:
                return None
            delivery = await self._mail.next()
            if delivery is None:
                return None
            await self._take(delivery)
        return _Transaction(*self._waiting[0])  # it stays there until it has begun

    async def _more(self) -> bool:
        """Wait for more mail; now and then a NOOP asks whether the peer is still there."""
        if self._is_full:
            return False
        channel = self._channel
        if self._silent_since is None:
            self._silent_since = channel.seconds()
        while True:
            left = self._silent_since + self._demands.keepalive - channel.seconds()
            there_is = await channel.doze(self._mail.more(), left) if left > 0 else None
            if there_is is not None:
                self._rested = there_is
                return there_is
            if channel.closing:
                return False
            if len(channel.wire):
                return await self._unasked()
            await self._command(b"NOOP", NOOP)
            self._silent_since = channel.seconds()

    async def _unasked(self) -> bool:
        """A reply to nothing: 421, as the peer closes (RFC 5321 section 3.8), or a fault."""
        try:
            reply = await self._reply(NOOP)
        except _Closing:
            return False
        raise PeerFault(f"a reply to nothing: {reply}")

    @property
    def _is_full(self) -> bool:
        """Whether no new delivery is to begin on this connection."""
        mail_max = self._limit("MAILMAX", MOST_TRANSACTIONS)
        return self._channel.closing or self._transactions >= mail_max

    async def _take(self, delivery: Delivery) -> None:
        """Queue a delivery in the form this peer can take, or settle it where there is none."""
        consignment = _Consignment(delivery)
        try:
            refusal = await self._fit(consignment)
        except OSError:
            refusal = replies.LOCAL_ERROR
        places = range(len(delivery.targets))
        if refusal is not None:
            consignment.outcomes = [refused(refusal, "")] * len(places)
            self._settle(consignment)
            return
        most = min(self._limit("RCPTMAX", USUAL_RCPTMAX), MOST_RECIPIENTS)
        for first in places[::most]:
            self._waiting.append((consignment, places[first : first + most]))

    async def _fit(self, consignment: _Consignment) -> Reply | None:
        """Convert content that the peer can't take; the reason where that can't be done."""
        delivery, content = consignment.delivery, consignment.content
        envelope = delivery.message.envelope
        international = envelope.reverse_path.is_internationalised or any(
            target.address.is_internationalised for target in delivery.targets
        )
        international = international or (envelope.smtputf8 and not content.is_ascii)
        if international and not self._offered("SMTPUTF8"):
            return replies.NO_SMTPUTF8
        # LMTP ends in the mailbox, and a notice goes back as well as it can: RFC 8689 section 5.
        tolerant = self._demands.lmtp or envelope.reverse_path.is_null
        if envelope.require_tls and not (tolerant or self._keeps_tls):
            return replies.TLS_NOT_KEPT
        if envelope.body is Body.BINARY:
            fits = self._streams and self._offered("BINARYMIME")
            consignment.body = Body.BINARY
        else:
            fits = content.is_ascii or self._offered("8BITMIME")
            consignment.body = Body.SEVEN_BIT if content.is_ascii else Body.EIGHT_BIT
        if not fits:
            converted = await sevenbit.converted(content)
            if converted is None:
                return replies.CONVERSION_FAILED
            consignment.content, consignment.body = converted, Body.SEVEN_BIT
        most = self._extensions.get("SIZE", "")
        if most.isdecimal() and 0 < int(most[:20]) < consignment.content.size:
            return replies.TOO_BIG_FOR_PEER
        return None

    def _abandon(self, error: Exception) -> None:
        """The connection is lost: what is not settled is deferred.

        Raises HopFailure where the peer took nothing on this connection: then other mail
        need not try at once.
        """
        match error:
            case _Closing():
                reply = error.reply
            case ChannelLost():
                reply = Reply(451, "4.4.2", (f"Connection lost {self._step.phrase}: {error}",))
            case OSError():
                self._progress = True  # it was not the peer's fault
                reply = replies.LOCAL_ERROR
            case _:
                reply = Reply(451, "4.5.0", (f"Protocol error {self._step.phrase}: {error}",))
        self.trouble = reply
        is_theirs = not isinstance(error, (LocalFault, OSError))
        outcome = Outcome(Status.DEFERRED, reply, self._remote, strains=is_theirs)
        is_new_try_due = self._rested and isinstance(error, ChannelLost)
        begun = [transaction.consignment for transaction in self._begun]
        for consignment in dict.fromkeys([*begun, *(waiting for waiting, _ in self._waiting)]):
            if is_new_try_due:
                self._mail.give_back(consignment.delivery)
                continue
            consignment.outcomes = [known or outcome for known in consignment.outcomes]
            self._settle(consignment)
        self._begun.clear()
        self._waiting.clear()
        if not (self._progress or is_new_try_due):
            raise HopFailure(outcome) from error

    # --- the dialogue

    def _demand(self, reply: Reply, code: int) -> None:
        if reply.code != code:
            raise HopFailure(Outcome(Status.DEFERRED, reply, self._remote))

    async def _command(self, line: bytes, step: Step) -> Reply:
        self._channel.write(line + b"\r\n")
        return await self._reply(step)

    async def _reply(self, step: Step) -> Reply:
        """The peer's next reply.  Raises ChannelLost, also for 421, and PeerFault."""
        self._step = step
        channel, parser = self._channel, replies.ReplyParser()
        end: float | None = None  # for all its lines
        while True:
            while (line := channel.wire.line(REPLY_LINE)) is None:
                end = end or channel.seconds() + step.timeout
                await channel.more(end)
            reply = parser.feed_line(line)
            if reply is not None:
                if reply.code == 421:
                    raise _Closing(reply)
                self._rested = False
                return reply

    async def _part(self, turn: Turn) -> IRole | None:
        """Ask for the turn; the role to take next."""
        for command in turn.commands:
            reply = await self._command(command.encode(), TURN)
            if turn.successor is not None and reply.code == 250:
                if len(self._channel.wire):
                    # Nothing may come before our greeting: it could only pretend to be commands.
                    raise PeerFault("octets after the reply that turned the connection")
                turn.told(reply)
                return turn.successor
            turn.told(reply)
        await self._quit()
        return None

    async def _quit(self) -> None:
        with suppress(ChannelLost, PeerFault):  # all that mattered was said before
            await self._command(b"QUIT", QUIT)


def refused(reply: Reply, remote: str) -> Outcome:
    """What a negative reply means for a recipient."""
    status = Status.FAILED if reply.is_permanent else Status.DEFERRED
    return Outcome(status, reply, remote)
