"""The receiver role: a verb table, and the answer to each verb (RFC 5321 section 4).

Answers return their reply; only the loop in `Receiver.converse` writes.  Replies to a
pipelined group go out together (RFC 2920 section 3.2).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, Flag, auto

from zope.interface import implementer

from mta.interfaces import (
    UNKNOWN_CLIENT,
    ChannelTimeout,
    IChannel,
    IDraft,
    IGate,
    IReversal,
    IRole,
    IUsers,
    Session,
)
from mta.mail import Body, Envelope, Mailbox, Recipient, Reply, distinct
from mta.settings import Limits, ListenerTLS, Service
from mta.smtp import grammar, replies, sasl
from mta.smtp.content import DotReader
from mta.smtp.errors import Refusal
from mta.smtp.grammar import ProxiedClient
from mta.smtp.intake import Depot, Intake
from mta.smtp.wire import LineTooLong, Wire

LINE = 512  # octets of a command line, CRLF included, RFC 5321 section 4.5.3.1.4
# What extensions add to MAIL and RCPT: SIZE 26, BODY 17, AUTH 500, RET and ENVID 113,
# SMTPUTF8 10, REQUIRETLS 11; NOTIFY 28, ORCPT 501 (RFC 1870, 6152, 4954, 3461, 6531, 8689).
LONG_LINE = LINE + 700
AUTH_LINE = 12288  # RFC 4954 section 4
MOST_TRANSACTIONS = 100_000  # on one connection; shown as MAILMAX, RFC 9422
MOST_IDLE = 100  # commands without any mail, before they count as errors
LEAST_CONTENT = 16 * 1024  # octets of content in one time-out: about the speed of a slow modem


class Phase(Flag):
    """How far a session has come."""

    GREETED = auto()  # no HELO, EHLO or LHLO yet
    READY = auto()
    MAIL = auto()
    RECIPIENTS = auto()
    CHUNKS = auto()  # BDAT has begun, RFC 3030
    ANY = GREETED | READY | MAIL | RECIPIENTS | CHUNKS
    IDLE = GREETED | READY


class Unread(Enum):
    """What becomes of input that came together with a command.

    Where the meaning of what follows changes, octets sent ahead of our reply may not be
    carried over: they can't be what they pretend to be (RFC 2920 section 3.1, RFC 3207).
    """

    KEPT = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Parting:
    """A reply, after which this role ends and `successor` takes the connection.

    Without a reply the successor speaks first.
    """

    reply: Reply | None
    successor: IRole | None = None


Answer = Reply | Parting | tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Verb:
    """How one command is treated: who answers, in which phases, what may follow it at once."""

    answer: Callable[[Receiver, bytes], Awaitable[Answer]]
    phases: Phase = Phase.ANY
    unread: Unread = Unread.KEPT
    line: int = LINE


@dataclass(frozen=True, slots=True)
class Reception:
    """What all receivers of one listener share.

    `is_proxy` says which addresses may name their clients by XCLIENT; `expand` gives the members
    of a list, to users, where EXPN is allowed at all; `replied` hears of each reply.
    """

    depot: Depot
    gate: IGate
    limits: Limits
    service: Service = Service.SMTP
    tls: ListenerTLS = ListenerTLS.OFF
    users: IUsers | None = None
    reversal: IReversal | None = None
    is_proxy: Callable[[str], bool] = lambda address: False
    expand: Callable[[Mailbox], Sequence[Mailbox]] | None = None
    replied: Callable[[Reply], None] = lambda reply: None


class Transaction:
    """MAIL to the end of content (RFC 5321 section 3.3).  It is dropped, never cleared.

    It has a `draft` from its beginning, so that the spool knows what may come.
    """

    __slots__ = ("argument", "draft", "intake", "recipients")

    def __init__(self, argument: grammar.MailArgument, draft: IDraft) -> None:
        self.argument = argument
        self.draft = draft
        self.recipients: list[Recipient] = []
        self.intake: Intake | None = None

    def envelope(self) -> Envelope:
        """The envelope as it now stands."""
        argument = self.argument
        return Envelope(
            argument.reverse_path,
            distinct(self.recipients),
            argument.body,
            argument.smtputf8,
            argument.ret,
            argument.envid,
            argument.require_tls,
        )


class _Pace:
    """A floor under the speed of content: in each time-out LEAST_CONTENT octets must come.

    A client that sends an octet now and then would otherwise hold its connection for ever.
    """

    __slots__ = ("_channel", "_end", "_octets", "_timeout")

    def __init__(self, channel: IChannel, timeout: float) -> None:
        self._channel = channel
        self._timeout = timeout
        self._begin()

    def _begin(self) -> None:
        self._octets = 0
        self._end = self._channel.seconds() + self._timeout

    def came(self, octets: int) -> None:
        """Count content that came."""
        self._octets += octets
        if self._octets >= LEAST_CONTENT:
            self._begin()

    async def more(self) -> None:
        """As `IChannel.more`, for as long as may be waited now."""
        await self._channel.more(self._end)


@implementer(IRole)
class Receiver:
    """Receiver-SMTP: one conversation, from our greeting to QUIT or TURN.

    `partner` names the peer that handed us the server's role by a turn.  `client` is whom
    a proxy named by XCLIENT.  `after_tls`: the conversation goes on after STARTTLS, with
    nothing remembered (RFC 3207 section 4.2).
    """

    def __init__(
        self,
        reception: Reception,
        *,
        partner: str = "",
        client: ProxiedClient | None = None,
        after_tls: bool = False,
    ) -> None:
        self._reception = reception
        self._verbs = VERBS[reception.service]
        self._partner = partner
        self._client = client
        self._after_tls = after_tls
        self._transaction: Transaction | None = None
        self._transactions = 0
        self._errors = 0
        self._idle = 0

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        self._channel = channel
        self._session = self._new_session(channel)
        try:
            return await self._converse()
        except ChannelTimeout:
            self._say(Reply(421, "4.4.2", ("Timed out waiting for you",)))
            raise
        finally:
            self._drop_transaction()
            self._reception.gate.leave(self._session)

    def _new_session(self, channel: IChannel) -> Session:
        """A session that knows nothing, or what a proxy told."""
        service, client = self._reception.service, self._client
        if client is None:
            return Session(service, channel.peer, channel.secured, self._partner)
        return Session(
            service,
            client.address or UNKNOWN_CLIENT,
            channel.secured,
            hello=client.hello,
            extended=client.extended,
            identity=client.user,
        )

    # --- the loop

    async def _converse(self) -> IRole | None:
        try:
            await self._open()
        except Refusal as refusal:
            if not self._begins_with_tls:  # else there is no way yet to say anything
                self._say(refusal.reply)
            return None
        while True:
            try:
                answer = await self._answer(await self._line())
            except Refusal as refusal:
                answer = self._refused(refusal.reply)
            except LineTooLong:
                answer = self._refused(replies.LINE_TOO_LONG)
            if isinstance(answer, Reply):
                self._say(answer)
            elif isinstance(answer, tuple):
                for reply in answer:
                    self._say(reply)
            else:
                if answer.reply is not None:
                    self._say(answer.reply)
                return answer.successor

    async def _open(self) -> None:
        """What comes before the first command.

        The gate is asked first: who hangs in a handshake is counted as well.
        """
        await self._reception.gate.admit(self._session)
        if self._begins_with_tls:
            await self._channel.start_tls()
            self._session.secured = self._channel.secured
        if not self._after_tls:
            await self._await_silence()
            self._say(replies.service_ready(self._reception.depot.hostname))

    @property
    def _begins_with_tls(self) -> bool:
        """Whether a handshake is the next thing on the connection."""
        implicit = self._reception.tls is ListenerTLS.IMPLICIT
        return (self._after_tls or implicit) and self._channel.secured is None

    async def _await_silence(self) -> None:
        """Hold the greeting back: who talks before it does not listen to replies."""
        delay = self._reception.limits.greet_delay
        if delay and self._reception.service is Service.SMTP and not self._partner:
            await self._channel.pause(delay)
            if len(self._channel.wire):
                raise Refusal(replies.TALKED_EARLY)

    async def _line(self) -> bytes:
        """The next command line.  Raises LineTooLong, or Refusal when we close."""
        channel = self._channel
        wire: Wire = channel.wire
        if (line := wire.line(AUTH_LINE)) is not None:
            return line
        end = channel.seconds() + self._reception.limits.timeout  # for the whole line
        while line is None:
            if channel.closing and self._transaction is None:
                raise Refusal(replies.shutting_down(self._reception.depot.hostname))
            await channel.more(end)
            line = wire.line(AUTH_LINE)
        return line

    async def _answer(self, line: bytes) -> Answer:
        command = grammar.parse_command(line)
        verb = self._verbs.get(command.verb)
        if verb is None:
            unknown = command.verb not in KNOWN
            return self._refused(
                replies.COMMAND_UNRECOGNISED if unknown else replies.NOT_IMPLEMENTED
            )
        if len(line) + 2 > verb.line:
            return self._refused(replies.LINE_TOO_LONG)
        if self._awaits_tls and command.verb not in BEFORE_TLS:
            return self._refused(replies.TLS_NEEDED)
        if verb.unread is Unread.REFUSED and len(self._channel.wire):
            return self._refused(replies.BAD_SEQUENCE)
        if command.verb in IDLE_VERBS and not self._partner:
            self._idle += 1
            if self._idle > MOST_IDLE:
                return self._refused(replies.NO_MAIL_COMES)
        phase = self._phase
        if phase not in verb.phases:
            if command.verb == "BDAT":
                size, _ = grammar.parse_bdat(command.argument)
                await self._take_chunk(size, None)
            return self._refused(
                replies.HELLO_FIRST if phase is Phase.GREETED else replies.BAD_SEQUENCE
            )
        return await verb.answer(self, command.argument)

    @property
    def _phase(self) -> Phase:
        if not self._session.hello:
            return Phase.GREETED
        transaction = self._transaction
        if transaction is None:
            return Phase.READY
        if transaction.intake is not None:
            return Phase.CHUNKS
        return Phase.RECIPIENTS if transaction.recipients else Phase.MAIL

    def _refused(self, reply: Reply) -> Answer:
        """Count bad commands; 421 ends the session (RFC 5321 section 3.8)."""
        if reply.code in BAD_COMMANDS:
            self._errors += 1
            if self._errors > self._reception.limits.errors:
                reply = replies.TOO_MANY_ERRORS
        return Parting(reply) if reply.code == 421 else reply

    def _say(self, reply: Reply) -> None:
        self._reception.replied(reply)
        self._channel.write(replies.encode(reply))

    def _drop_transaction(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.draft.discard()

    # --- the answers: sessions

    async def helo(self, argument: bytes) -> Answer:
        """HELO: a session without extensions (RFC 5321 section 4.1.1.1)."""
        self._begin_session(argument, extended=False)
        return Reply(250, "", (self._reception.depot.hostname,))

    async def ehlo(self, argument: bytes) -> Answer:
        """EHLO and LHLO: a session with extensions."""
        self._begin_session(argument, extended=True)
        return Reply(250, "", (self._reception.depot.hostname, *await self._extensions()))

    def _begin_session(self, argument: bytes, *, extended: bool) -> None:
        hello = grammar.parse_hello(argument)
        self._drop_transaction()
        self._session.hello = hello
        self._session.extended = extended

    async def _extensions(self) -> list[str]:
        """The EHLO keywords: what this session may use now, and nothing else."""
        reception, session = self._reception, self._session
        keywords = ["ENHANCEDSTATUSCODES", "PIPELINING"]
        if reception.service is not Service.ODMR:
            keywords += [
                f"SIZE {reception.limits.message_size}",
                "8BITMIME",
                "SMTPUTF8",
                "CHUNKING",
                "BINARYMIME",
                "DSN",
                f"LIMITS MAILMAX={MOST_TRANSACTIONS} RCPTMAX={reception.limits.recipients}",
            ]
            if session.secured is not None:
                keywords.append("REQUIRETLS")
        if self._offers_tls():
            keywords.append("STARTTLS")
        if self._may_expand:
            keywords.append("EXPN")
        if self._is_proxied and reception.service is not Service.ODMR:
            keywords.append(" ".join(("XCLIENT", *grammar.XCLIENT_ATTRIBUTES)))
        if reception.reversal is not None:
            keywords += reception.reversal.methods(session)
        if mechanisms := await self._mechanisms():
            keywords.append(" ".join(("AUTH", *mechanisms)))
        return [*keywords, "HELP"]

    async def _mechanisms(self) -> Sequence[str]:
        """The SASL mechanisms that this session may use: nobody logs in on a turned link."""
        users = self._reception.users
        if users is None or self._partner or self._awaits_tls:
            return ()
        return await users.mechanisms(self._session)

    @property
    def _awaits_tls(self) -> bool:
        return self._reception.tls is ListenerTLS.REQUIRED and self._session.secured is None

    def _offers_tls(self) -> bool:
        """TLS begins at most once, and never on a turned connection.

        Nor after XCLIENT: it would make us forget for whom the proxy speaks, and take its own
        rights for the client's.
        """
        return (
            self._reception.tls in (ListenerTLS.OPPORTUNISTIC, ListenerTLS.REQUIRED)
            and self._session.secured is None
            and not self._partner
            and not self._client
        )

    @property
    def _may_expand(self) -> bool:
        return self._reception.expand is not None and bool(self._session.identity)

    @property
    def _is_proxied(self) -> bool:
        return not self._partner and self._reception.is_proxy(self._channel.peer)

    async def starttls(self, argument: bytes) -> Answer:
        """STARTTLS (RFC 3207): what came with it in plain text is dropped."""
        _no_argument(argument)
        if not self._offers_tls():
            return self._refused(replies.BAD_SEQUENCE)
        return Parting(replies.START_TLS, Receiver(self._reception, after_tls=True))

    async def auth(self, argument: bytes) -> Answer:
        """AUTH (RFC 4954 section 4)."""
        session, gate, users = self._session, self._reception.gate, self._reception.users
        if users is None or self._partner:
            raise Refusal(replies.NOT_IMPLEMENTED)
        if session.identity:
            raise Refusal(replies.BAD_SEQUENCE)
        mechanisms = await self._mechanisms()
        name, _, initial = argument.partition(b" ")
        mechanism = name.decode("ascii", "replace").upper()
        if mechanism not in mechanisms:
            raise Refusal(_not_offered(mechanism, session))
        gate.authenticating(session)
        try:
            response = _response(initial) if initial else None
            session.identity = await users.authenticate(
                session, mechanism, response, self._challenge
            )
        except sasl.AuthenticationFailed:
            await self._channel.pause(gate.auth_failed(session))
            raise Refusal(replies.AUTH_FAILED) from None
        except sasl.AuthenticationUnavailable:
            raise Refusal(replies.AUTH_UNAVAILABLE) from None
        return replies.AUTH_OK

    async def _challenge(self, challenge: bytes) -> bytes:
        """Send a challenge, return the response.  Raises Refusal when the client cancels."""
        self._say(Reply(334, "", (b64encode(challenge).decode(),)))
        line = await self._line()
        if line == b"*":
            raise Refusal(replies.AUTH_CANCELLED)
        return _response(line)

    async def turn(self, argument: bytes) -> Answer:
        """TURN (RFC 821 section 3.8)."""
        _no_argument(argument)
        return self._reversing(await self._reversal().turn(self._session))

    async def atrn(self, argument: bytes) -> Answer:
        """ATRN (RFC 2645 section 5.2.1)."""
        domains = grammar.parse_domains(argument)
        return self._reversing(await self._reversal().atrn(self._session, domains))

    async def etrn(self, argument: bytes) -> Answer:
        """ETRN (RFC 1985 section 5)."""
        return await self._reversal().etrn(self._session, *grammar.parse_etrn(argument))

    def _reversing(self, successor: IRole) -> Answer:
        if len(self._channel.wire):  # it came while the successor was found
            raise Refusal(replies.BAD_SEQUENCE)
        return Parting(replies.REVERSING, successor)

    def _reversal(self) -> IReversal:
        if self._reception.reversal is None:
            raise Refusal(replies.NOT_IMPLEMENTED)
        return self._reception.reversal

    async def rset(self, argument: bytes) -> Answer:
        """RSET: forget the transaction (RFC 5321 section 4.1.1.5)."""
        _no_argument(argument)
        self._drop_transaction()
        return replies.OK

    async def noop(self, argument: bytes) -> Answer:
        """NOOP (RFC 5321 section 4.1.1.9)."""
        return replies.OK

    async def help(self, argument: bytes) -> Answer:
        """HELP (RFC 5321 section 4.1.1.8)."""
        return Reply(214, "2.0.0", ("Commands: " + " ".join(self._verbs),))

    async def vrfy(self, argument: bytes) -> Answer:
        """VRFY without an answer that harvesters could use (RFC 5321 section 7.3)."""
        if not argument:
            raise Refusal(replies.BAD_ARGUMENT)
        return replies.CANNOT_VERIFY

    async def expn(self, argument: bytes) -> Answer:
        """EXPN, for users only where it is allowed (RFC 5321 sections 3.5 and 7.3)."""
        if not self._may_expand or self._reception.expand is None:
            raise Refusal(replies.NOT_IMPLEMENTED)
        members = self._reception.expand(grammar.parse_list(argument))
        return Reply(250, "2.1.5", tuple(f"<{member}>" for member in members))

    async def xclient(self, argument: bytes) -> Answer:
        """XCLIENT: a proxy says for whom it speaks, and the session begins anew."""
        if not self._is_proxied:
            raise Refusal(replies.NOT_IMPLEMENTED)
        client = grammar.parse_xclient(argument, self._client or ProxiedClient())
        return Parting(None, Receiver(self._reception, client=client))

    async def quit(self, argument: bytes) -> Answer:
        """QUIT (RFC 5321 section 4.1.1.10)."""
        _no_argument(argument)
        return Parting(replies.closing(self._reception.depot.hostname))

    # --- the answers: transactions

    async def mail(self, argument: bytes) -> Answer:
        """MAIL (RFC 5321 section 4.1.1.2)."""
        reception, session = self._reception, self._session
        if self._transactions >= MOST_TRANSACTIONS:
            raise Refusal(replies.TOO_MANY_TRANSACTIONS)
        parameters = MAIL_PARAMETERS if session.secured is None else TLS_MAIL_PARAMETERS
        parsed = grammar.parse_mail(argument, self._offered(parameters))
        if parsed.size is not None and parsed.size > reception.limits.message_size:
            raise Refusal(replies.TOO_BIG)
        await reception.gate.mail(session, parsed.reverse_path)
        self._transactions += 1
        self._transaction = Transaction(parsed, reception.depot.spool.draft())
        return replies.SENDER_OK

    async def rcpt(self, argument: bytes) -> Answer:
        """RCPT (RFC 5321 section 4.1.1.3)."""
        reception, transaction = self._reception, self._transaction
        assert transaction is not None
        if len(transaction.recipients) >= reception.limits.recipients:
            raise Refusal(replies.TOO_MANY_RECIPIENTS)
        recipient = grammar.parse_rcpt(
            argument, self._offered(RCPT_PARAMETERS), smtputf8=transaction.argument.smtputf8
        )
        await reception.gate.recipient(self._session, transaction.argument.reverse_path, recipient)
        transaction.recipients.append(recipient)
        return replies.RECIPIENT_OK

    def _offered(self, parameters: frozenset[str]) -> frozenset[str]:
        return parameters if self._session.extended else frozenset()

    async def data(self, argument: bytes) -> Answer:
        """DATA (RFC 5321 section 4.1.1.4)."""
        _no_argument(argument)
        transaction = self._transaction
        assert transaction is not None
        if transaction.argument.body is Body.BINARY:
            raise Refusal(replies.BAD_SEQUENCE)  # RFC 3030 section 3
        if not transaction.recipients:
            lmtp = self._reception.service is Service.LMTP
            raise Refusal(replies.BAD_SEQUENCE if lmtp else replies.NO_RECIPIENTS)  # RFC 2033 4.2
        transaction.intake = intake = self._intake(transaction)
        self._say(replies.START_CONTENT)
        channel, reader, pace = self._channel, DotReader(), self._pace()
        while not reader.ended:
            octets = channel.wire.take()
            if not octets:  # none came while the last piece was being written
                await pace.more()
                continue
            piece, rest = reader.decode(octets)
            if piece:
                await intake.write(piece)
                pace.came(len(piece))
        channel.wire.put_back(rest)
        return await self._end_of_content(intake)

    async def bdat(self, argument: bytes) -> Answer:
        """BDAT (RFC 3030 section 2)."""
        transaction = self._transaction
        assert transaction is not None
        size, last = grammar.parse_bdat(argument)
        if not transaction.recipients:
            await self._take_chunk(size, None)
            raise Refusal(replies.NO_RECIPIENTS)
        if transaction.intake is None:
            transaction.intake = self._intake(transaction)
        await self._take_chunk(size, transaction.intake)
        if last:
            return await self._end_of_content(transaction.intake)
        if transaction.intake.refusal is not None:
            self._drop_transaction()
            return transaction.intake.refusal
        return replies.OK

    def _intake(self, transaction: Transaction) -> Intake:
        depot, gate = self._reception.depot, self._reception.gate
        return Intake(depot, gate, self._session, transaction.envelope(), transaction.draft)

    def _pace(self) -> _Pace:
        return _Pace(self._channel, self._reception.limits.timeout)

    async def _end_of_content(self, intake: Intake) -> Answer:
        """The place where responsibility passes (RFC 5321 section 6.1)."""
        transaction = self._transaction
        assert transaction is not None
        reply = await intake.accept()
        self._transaction = None
        if reply.is_positive:
            self._idle = 0
        if self._reception.service is Service.LMTP:
            return (reply,) * len(transaction.recipients)  # RFC 2033 section 4.2
        return reply

    async def _take_chunk(self, size: int, intake: Intake | None) -> None:
        """Take a chunk of `size` octets, whatever is to become of it."""
        channel, pace = self._channel, self._pace()
        while size:
            piece = channel.wire.take(size)
            if not piece:
                await pace.more()
                continue
            size -= len(piece)
            if intake is not None:
                await intake.write(piece)
            pace.came(len(piece))


def _response(encoded: bytes) -> bytes:
    """A SASL response out of its base64; ``=`` is an empty one (RFC 4954 section 4)."""
    try:
        return b"" if encoded == b"=" else b64decode(encoded, validate=True)
    except ValueError:
        raise Refusal(replies.BAD_BASE64) from None


def _not_offered(mechanism: str, session: Session) -> Reply:
    """Why a mechanism can't be used now (RFC 4954 sections 4 and 6)."""
    if mechanism in sasl.NEEDS_TLS and session.secured is None:
        return replies.ENCRYPTION_NEEDED
    if mechanism == sasl.CRAM_MD5:
        return replies.MECHANISM_TOO_WEAK
    return replies.MECHANISM_UNKNOWN


def _no_argument(argument: bytes) -> None:
    if argument:
        raise Refusal(replies.BAD_ARGUMENT)


BAD_COMMANDS = frozenset({500, 501, 502, 503, 504, 555})
MAIL_PARAMETERS = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"})
TLS_MAIL_PARAMETERS = MAIL_PARAMETERS | {"REQUIRETLS"}  # RFC 8689 section 4.1
RCPT_PARAMETERS = frozenset({"NOTIFY", "ORCPT"})

_COMMON = {
    "EHLO": Verb(Receiver.ehlo),
    "STARTTLS": Verb(Receiver.starttls, Phase.IDLE),
    "RSET": Verb(Receiver.rset),
    "NOOP": Verb(Receiver.noop),
    "HELP": Verb(Receiver.help),
    "QUIT": Verb(Receiver.quit),
    "AUTH": Verb(Receiver.auth, Phase.READY, Unread.REFUSED, AUTH_LINE),
    "ATRN": Verb(Receiver.atrn, Phase.READY, Unread.REFUSED),
}
_MAIL = {
    **_COMMON,
    "HELO": Verb(Receiver.helo),
    "MAIL": Verb(Receiver.mail, Phase.READY, line=LONG_LINE),
    "RCPT": Verb(Receiver.rcpt, Phase.MAIL | Phase.RECIPIENTS, line=LONG_LINE),
    "DATA": Verb(Receiver.data, Phase.MAIL | Phase.RECIPIENTS),
    "BDAT": Verb(Receiver.bdat, Phase.MAIL | Phase.RECIPIENTS | Phase.CHUNKS),
    "VRFY": Verb(Receiver.vrfy),
    "EXPN": Verb(Receiver.expn),
    "XCLIENT": Verb(Receiver.xclient, Phase.IDLE, Unread.REFUSED, LONG_LINE),
    "TURN": Verb(Receiver.turn, Phase.READY, Unread.REFUSED),
    "ETRN": Verb(Receiver.etrn, Phase.READY),
}
_LMTP = {**_MAIL, "LHLO": Verb(Receiver.ehlo)}
del _LMTP["HELO"], _LMTP["EHLO"]  # RFC 2033 section 4.1
for _verb in ("TURN", "ATRN", "ETRN"):
    del _LMTP[_verb]

VERBS: Mapping[Service, Mapping[str, Verb]] = {
    Service.SMTP: _MAIL,
    Service.SUBMISSION: _MAIL,
    Service.LMTP: _LMTP,
    Service.ODMR: _COMMON,
}
# Verbs of the RFCs that a listener may not offer: 502, where a word nobody knows gets 500.
KNOWN = frozenset(_MAIL) | {"SEND", "SOML", "SAML"}
# Verbs that keep a session alive and bring no mail.
IDLE_VERBS = frozenset(
    {"HELO", "EHLO", "LHLO", "NOOP", "RSET", "VRFY", "EXPN", "HELP", "ETRN", "XCLIENT"}
)
BEFORE_TLS = frozenset({"EHLO", "HELO", "LHLO", "NOOP", "STARTTLS", "QUIT"})  # RFC 3207 section 4
