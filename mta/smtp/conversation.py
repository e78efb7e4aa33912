"""One session on one connection, as the answers see it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Flag, auto

from zope.interface import implementer

from mta.interfaces import IChannel, IEvictable, IRole
from mta.mail import Envelope, MailArgument, Recipient, Reply, distinct
from mta.queued import IDraft
from mta.session import UNKNOWN_ADDRESS, Origin, Session
from mta.settings import ListenerTLS, Service
from mta.smtp import grammar, replies
from mta.smtp.cost import ALLOWANCE, REDUCED_ALLOWANCE, SLOW_DELAY, SessionCost, TimeSlice
from mta.smtp.errors import Refusal
from mta.smtp.grammar import ProxiedClient
from mta.smtp.incoming import IncomingMessage
from mta.smtp.inspection import MessageInspection, SessionInspection
from mta.smtp.reading import ContentReader
from mta.smtp.receiver_config import ReceiverConfig
from mta.smtp.told_origin import ToldOrigin
from mta.smtp.wire import Wire

MAX_LINE = 512  # octets of a command line, CRLF included, RFC 5321 section 4.5.3.1.4
# What extensions add to MAIL and RCPT: SIZE 26, BODY 17, AUTH 500, RET and ENVID 113,
# SMTPUTF8 10, REQUIRETLS 11; NOTIFY 28, ORCPT 501 (RFC 1870, 6152, 4954, 3461, 6531, 8689).
MAX_LONG_LINE = MAX_LINE + 700
MAX_AUTH_LINE = 12288  # RFC 4954 section 4


class Phase(Flag):
    """The phases of a session."""

    REFUSED = auto()  # the greeting was 554: only QUIT is answered, RFC 5321 section 3.1
    GREETED = auto()  # no HELO, EHLO or LHLO yet
    READY = auto()
    MAIL = auto()
    RECIPIENTS = auto()
    CHUNKS = auto()  # BDAT has begun, RFC 3030
    ANY = GREETED | READY | MAIL | RECIPIENTS | CHUNKS
    IDLE = GREETED | READY


@dataclass(frozen=True, slots=True)
class EndOfRole:
    """A reply after which this role ends.

    `next_role` takes the connection; None: it is closed.
    """

    reply: Reply
    next_role: IRole | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """A reply, or none, after which the session begins anew.

    Nothing is remembered of it.  `client` is the one that a proxy named by XCLIENT.  `after_tls`:
    there is no second greeting (RFC 3207 section 4.2).
    """

    reply: Reply | None = None
    client: ProxiedClient | None = None
    after_tls: bool = False


Answer = Reply | EndOfRole | Restart | tuple[Reply, ...]


class Transaction:
    """A transaction, MAIL to end of content (RFC 5321 section 3.3).

    It is dropped, never cleared.  `began`: seconds of the channel.  It has a `draft` from its
    beginning, so that the spool knows what may come.  `refusal` is that of its MAIL, where it may
    be a second copy: recipients hear it who have not got the first one.
    """

    __slots__ = (
        "argument",
        "began",
        "draft",
        "incoming",
        "inspection",
        "origin",
        "recipients",
        "refusal",
    )

    def __init__(self, argument: MailArgument, draft: IDraft, origin: Origin, began: float) -> None:
        self.argument = argument
        self.draft = draft
        self.origin = origin
        self.began = began
        self.inspection: MessageInspection | None = None
        self.refusal: Reply | None = None
        self.recipients: list[Recipient] = []
        self.incoming: IncomingMessage | None = None

    def discard(self) -> None:
        """Forget the message."""
        self.draft.discard()
        if self.inspection is not None:
            self.inspection.abort()

    def envelope(self, *, outside: bool) -> Envelope:
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
            outside,
        )


@implementer(IEvictable)
class Conversation:
    """One session on one connection, as the answers see it.

    `client` is the one that a proxy named by XCLIENT; `verbs` are the names of the commands that
    the listener has.
    """

    def __init__(
        self,
        config: ReceiverConfig,
        channel: IChannel,
        verbs: Sequence[str],
        *,
        turned_peer: str = "",
        client: ProxiedClient | None = None,
    ) -> None:
        self.config = config
        self._meter = config.meter
        self.channel = channel
        self.verbs = verbs
        self.client = client
        self.session = _new_session(config.service, channel, turned_peer, client)
        self.session.cleartext_auth = config.cleartext_auth
        self.inspection: SessionInspection | None = None
        if config.inspectors:
            self.inspection = SessionInspection(config.inspectors, self.session)
        self.cost = SessionCost()
        self.is_refused = False
        self.transaction: Transaction | None = None
        self.told_origin = ToldOrigin()
        self.transactions = 0
        self.is_ahead = False  # it has waited for no line since the last message
        self.time_slice = TimeSlice(channel, config.turns)
        self.reader = ContentReader(channel, config.limits.timeout, config.content_order)

    # --- lines and replies

    async def line(self) -> bytes:
        """Read the next line.  Raises LineTooLong, or Refusal when we close."""
        channel = self.channel
        wire: Wire = channel.wire
        if (line := wire.line(MAX_AUTH_LINE)) is not None:
            return line
        config = self.config
        timeout = config.limits.timeout
        if config.idle_timeout and self.transaction is None:
            timeout = min(timeout, config.idle_timeout)
        end = channel.seconds() + timeout  # for the whole line
        while line is None:
            if len(wire) and grammar.is_foreign(wire.first):
                raise Refusal(replies.NOT_SMTP)
            if channel.closing and self.transaction is None:
                raise Refusal(replies.shutting_down(self.config.hostname))
            await channel.receive(end)
            line = wire.line(MAX_AUTH_LINE)
        self.is_ahead = False
        self.time_slice.restart()
        if config.content_order is not None:
            config.content_order.other_came(channel.remote_address)
        return line

    def send(self, reply: Reply) -> None:
        """Send a reply."""
        if self._meter is not None:
            self._meter.replied(reply)
        self.channel.write(replies.encode(reply))

    async def challenge(self, text: bytes) -> bytes:
        """Send a challenge of AUTH; return the response (RFC 4954 section 4).

        Raises Refusal, where the client cancels as well.
        """
        self.send(Reply(334, "", (b64encode(text).decode(),)))
        line = await self.line()
        if line == b"*":
            raise Refusal(replies.AUTH_CANCELLED)
        return sasl_response(line)

    async def let_others_work(self) -> None:
        """Let other sessions work where this one has worked long enough.

        Where no more has come, it waits anyway.
        """
        delay = 0.0 if self.session.turned_peer else self.cost.delay
        if delay or len(self.channel.wire):
            await self.time_slice.let_others_work(delay)

    async def await_turn_of_mail(self) -> None:
        """Let other hosts work where MAIL was said ahead.

        Users, hosts of ours and peers that turned the connection may say all of their mail ahead.
        """
        order, access = self.config.content_order, self.config.access
        if not self.is_ahead or order is None or self.session.turned_peer:
            return
        if access.is_outsider(self.session):
            await order.next_message(self.channel.remote_address)

    # --- where the session stands

    @property
    def phase(self) -> Phase:
        """The phase that it is in."""
        if self.is_refused:
            return Phase.REFUSED
        if not self.session.hello:
            return Phase.GREETED
        transaction = self.transaction
        if transaction is None:
            return Phase.READY
        if transaction.incoming is not None:
            return Phase.CHUNKS
        return Phase.RECIPIENTS if transaction.recipients else Phase.MAIL

    def admitted(self) -> None:
        """Take over what the access policy knows of the host's other sessions."""
        if self.session.host_commands_without_mail > ALLOWANCE:
            self.cost.allowance = REDUCED_ALLOWANCE

    async def await_others(self) -> None:
        """Let others work before the greeting of a costly host.

        So many connections from it at once keep no others waiting.
        """
        if self.session.host_commands_without_mail > ALLOWANCE:
            await self.time_slice.let_others_work(SLOW_DELAY)

    def charged(self) -> Reply | None:
        """Charge the host; returns the reply if that is too much."""
        self.session.commands_without_mail = self.cost.without_mail
        try:
            self.config.access.charge(self.session)
        except Refusal as refusal:
            return refusal.reply
        self.admitted()
        return None

    def evict(self) -> None:
        """See `IEvictable.evict`.  A reply would have to wait for who takes none."""
        self.channel.abort()

    def end(self) -> None:
        """End the session, and leave behind what its host is charged with.

        That is nothing for what any session has.
        """
        self.drop_transaction()
        if self.inspection is not None:
            self.inspection.close()
        if self.cost.without_mail > REDUCED_ALLOWANCE:
            self.session.commands_without_mail = self.cost.without_mail

    def drop_transaction(self) -> None:
        """End the transaction without a message, where there is one."""
        transaction = self.transaction
        self.close_transaction()
        if transaction is not None:
            transaction.discard()
            self.cost.no_message()

    def close_transaction(self) -> None:
        """Forget the transaction, and what was told of its client."""
        self.transaction = self.session.forwarded = None
        self.told_origin.clear()

    # --- what the session may use now

    @property
    def awaits_tls(self) -> bool:
        """Tell whether TLS has to come first."""
        return self.config.tls is ListenerTLS.REQUIRED and self.session.tls is None

    @property
    def offers_tls(self) -> bool:
        """Tell whether TLS may begin: once, and never on a turned connection.

        Nor after XCLIENT: it would make us forget the client that the proxy speaks for, and take
        the proxy's rights for the client's.
        """
        return (
            self.config.tls in (ListenerTLS.OPPORTUNISTIC, ListenerTLS.REQUIRED)
            and self.session.tls is None
            and not self.session.turned_peer
            and self.client is None
        )

    @property
    def may_expand(self) -> bool:
        """Tell whether EXPN is answered."""
        return self.config.lists is not None and bool(self.session.identity)

    @property
    def is_proxied(self) -> bool:
        """Tell whether XCLIENT is answered."""
        names = self.config.names
        if names is None or self.session.turned_peer:
            return False
        return names.is_proxy(self.channel.remote_address)

    @property
    def takes_origins(self) -> bool:
        """Tell whether XFORWARD is taken.

        On a turned connection the peer's entry says so, elsewhere the list of proxies.
        """
        config = self.config
        if self.session.turned_peer:
            return config.takes_origins and self.session.tls is not None
        return config.names is not None and config.names.tells_origins(self.channel.remote_address)

    @property
    def takes_sealed(self) -> bool:
        """Tell whether sealed mail is taken.

        It is from a peer that we dialled, behind TLS.
        """
        opener, session = self.config.opener, self.session
        if opener is None or session.tls is None:
            return False
        return bool(session.turned_peer) and opener.has_key(session.turned_peer)

    async def mechanisms(self) -> Sequence[str]:
        """The SASL mechanisms to offer; none on a turned link."""
        users = self.config.users
        if users is None or self.session.turned_peer or self.awaits_tls:
            return ()
        return await users.mechanisms(self.session)


def sasl_response(encoded: bytes) -> bytes:
    """Decode a SASL response (RFC 4954 section 4).  ``=`` is an empty one."""
    try:
        return b"" if encoded == b"=" else b64decode(encoded, validate=True)
    except ValueError:
        raise Refusal(replies.BAD_BASE64) from None


def _new_session(
    service: Service, channel: IChannel, turned_peer: str, client: ProxiedClient | None
) -> Session:
    """A session that knows nothing, or what a proxy told."""
    if client is None:
        port = channel.remote_port
        return Session(service, channel.remote_address, channel.tls, turned_peer, port=port)
    return Session(
        service,
        client.address or UNKNOWN_ADDRESS,
        channel.tls,
        hello=client.hello,
        extended=client.extended,
        identity=client.user,
        port=client.port,
    )
