"""What the answers to commands share: the session, the transaction, the connection.

`Conversation` is one session on one connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Flag, auto

from mta.interfaces import IChannel, IRole
from mta.mail import Envelope, Recipient, Reply, distinct
from mta.queued import IDraft
from mta.session import UNKNOWN_ADDRESS, Origin, Session
from mta.settings import ListenerTLS, Service
from mta.smtp import grammar, replies
from mta.smtp.cost import FREE, LITTLE, Cost, Slices
from mta.smtp.errors import Refusal
from mta.smtp.grammar import ProxiedClient
from mta.smtp.incoming import IncomingMessage
from mta.smtp.inspection import MessageInspection, SessionInspection
from mta.smtp.receiver_config import ReceiverConfig
from mta.smtp.wire import Wire

LINE = 512  # octets of a command line, CRLF included, RFC 5321 section 4.5.3.1.4
# What extensions add to MAIL and RCPT: SIZE 26, BODY 17, AUTH 500, RET and ENVID 113,
# SMTPUTF8 10, REQUIRETLS 11; NOTIFY 28, ORCPT 501 (RFC 1870, 6152, 4954, 3461, 6531, 8689).
LONG_LINE = LINE + 700
AUTH_LINE = 12288  # RFC 4954 section 4


class Phase(Flag):
    """How far a session has come."""

    REFUSED = auto()  # the greeting was 554: only QUIT is answered, RFC 5321 section 3.1
    GREETED = auto()  # no HELO, EHLO or LHLO yet
    READY = auto()
    MAIL = auto()
    RECIPIENTS = auto()
    CHUNKS = auto()  # BDAT has begun, RFC 3030
    ANY = GREETED | READY | MAIL | RECIPIENTS | CHUNKS
    IDLE = GREETED | READY


@dataclass(frozen=True, slots=True)
class Parting:
    """A reply, after which this role ends and `successor` takes the connection."""

    reply: Reply
    successor: IRole | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """A reply, or none, after which the session begins anew with nothing remembered.

    `client` is whom a proxy named by XCLIENT.  `after_tls`: there is no second greeting
    (RFC 3207 section 4.2).
    """

    reply: Reply | None = None
    client: ProxiedClient | None = None
    after_tls: bool = False


Answer = Reply | Parting | Restart | tuple[Reply, ...]


class Transaction:
    """MAIL to the end of content (RFC 5321 section 3.3).  It is dropped, never cleared.

    It has a `draft` from its beginning, so that the spool knows what may come.
    """

    __slots__ = ("argument", "draft", "incoming", "inspection", "origin", "recipients")

    def __init__(self, argument: grammar.MailArgument, draft: IDraft, origin: Origin) -> None:
        self.argument = argument
        self.draft = draft
        self.origin = origin
        self.inspection: MessageInspection | None = None
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


class Conversation:
    """One session on one connection, as the answers see it.

    `client` is whom a proxy named by XCLIENT; `verbs` are the names of the commands that the
    listener has.
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
        self.cost = Cost()
        self.is_refused = False
        self.transaction: Transaction | None = None
        self.transactions = 0
        self.slices = Slices(channel)

    # --- what was said, and what is said

    async def line(self) -> bytes:
        """The next line.  Raises LineTooLong, or Refusal when we close."""
        channel = self.channel
        wire: Wire = channel.wire
        if (line := wire.line(AUTH_LINE)) is not None:
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
            line = wire.line(AUTH_LINE)
        self.slices.begin()
        return line

    def say(self, reply: Reply) -> None:
        """Send a reply."""
        if self._meter is not None:
            self._meter.replied(reply)
        self.channel.write(replies.encode(reply))

    async def yield_turn(self) -> None:
        """Let others have their turn where we have worked long enough, or cost too much.

        Who has said no more waits anyway.
        """
        delay = 0.0 if self.session.turned_peer else self.cost.delay
        if delay or len(self.channel.wire):
            await self.slices.end(delay)

    # --- where the session stands

    @property
    def phase(self) -> Phase:
        """How far it has come."""
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
        """The access has let the session in, and knows what its host cost in others."""
        if self.session.host_wasted > FREE:
            self.cost.free = LITTLE

    def end(self) -> None:
        """The session is over; what any session has, its host is not charged with."""
        self.drop_transaction()
        if self.inspection is not None:
            self.inspection.close()
        if self.cost.wasted > LITTLE:
            self.session.wasted = self.cost.wasted

    def drop_transaction(self) -> None:
        """End the transaction without a message, where there is one."""
        transaction, self.transaction = self.transaction, None
        if transaction is not None:
            transaction.discard()
            self.cost.no_message()

    # --- what the session may use now

    @property
    def awaits_tls(self) -> bool:
        """Whether nothing may be done before TLS."""
        return self.config.tls is ListenerTLS.REQUIRED and self.session.tls is None

    @property
    def offers_tls(self) -> bool:
        """TLS begins at most once, and never on a turned connection.

        Nor after XCLIENT: it would make us forget for whom the proxy speaks, and take its own
        rights for the client's.
        """
        return (
            self.config.tls in (ListenerTLS.OPPORTUNISTIC, ListenerTLS.REQUIRED)
            and self.session.tls is None
            and not self.session.turned_peer
            and self.client is None
        )

    @property
    def may_expand(self) -> bool:
        """Whether EXPN is answered."""
        return self.config.lists is not None and bool(self.session.identity)

    @property
    def is_proxied(self) -> bool:
        """Whether XCLIENT is answered."""
        names = self.config.names
        if names is None or self.session.turned_peer:
            return False
        return names.is_proxy(self.channel.remote_address)

    async def mechanisms(self) -> Sequence[str]:
        """The SASL mechanisms that this session may use: nobody logs in on a turned link."""
        users = self.config.users
        if users is None or self.session.turned_peer or self.awaits_tls:
            return ()
        return await users.mechanisms(self.session)


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
    )
