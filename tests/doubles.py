"""Stand-ins for what surrounds a conversation: the access, the users, reversal, TLS, a wire."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITLSTransport
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from mta.interfaces import (
    IAccessPolicy,
    IChannel,
    IClientTLS,
    IFirstRoles,
    IMailSource,
    IReversal,
    IRole,
    ITLSContext,
    ITurnReplies,
    IUsers,
)
from mta.mail import Agent, Envelope, Hop, Mailbox, Outcome, Recipient, Reply, Security
from mta.queued import Delivery, Message, Target
from mta.session import Session, TLSInfo
from mta.settings import Limits, ListenerTLS, Service
from mta.smtp import replies, sasl
from mta.smtp.errors import Refusal
from mta.smtp.intake import Depot
from mta.smtp.receiver import Reception
from mta.spool.content import MemoryContent
from tests.fakes import FakeSpool

HOSTNAME = "mta.example"
SECURED = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")
DELAY = 3.0  # seconds after a failed AUTH


class Transport(StringTransport):
    """A connection in memory that counts its writes; with `is_full` it asks for a pause."""

    writes = 0
    is_full = False

    def write(self, data: bytes) -> None:
        self.writes += 1
        super().write(data)
        if self.is_full:
            self.producer.pauseProducing()

    def taken(self) -> bytes:
        """What was written since the last time."""
        data = self.value()
        self.clear()
        return data


@implementer(IAccessPolicy)
class FakeAccessPolicy:
    """Lets everybody in, and knows everybody but `nobody`; `later` is busy.

    `closed` is the reply to all who come.  `sessions` counts those that have not left.
    """

    def __init__(self, closed: Reply | None = None) -> None:
        self.closed = closed
        self.sessions = 0

    async def connect(self, session: Session) -> None:
        """See `IAccessPolicy`."""
        self.sessions += 1
        if self.closed is not None:
            raise Refusal(self.closed)

    async def mail(self, session: Session, reverse_path: Mailbox) -> None:
        """Spammers are refused."""
        if reverse_path.local_part == "spammer":
            raise Refusal(Reply(550, "5.7.1", ("Not from you",)))

    async def rcpt(self, session: Session, reverse_path: Mailbox, recipient: Recipient) -> None:
        """See the class."""
        match recipient.forward_path.local_part:
            case "nobody":
                raise Refusal(replies.NO_SUCH_USER)
            case "later":
                raise Refusal(Reply(450, "4.2.1", ("Mailbox busy",)))

    def disconnect(self, session: Session) -> None:
        """See `IAccessPolicy`."""
        self.sessions -= 1

    async def auth(self, session: Session) -> None:
        """All may try."""

    def authenticated(self, session: Session, user: str) -> float:
        """At once."""
        return 0.0

    def auth_failed(self, session: Session, user: str, is_known: bool) -> float:
        """See `DELAY`."""
        return DELAY

    def is_outsider(self, session: Session) -> bool:
        """Who has not logged in."""
        return not session.identity

    def checks_authors(self, session: Session) -> bool:
        """Nobody is a peer."""
        return True

    def header_section(self, envelope: Envelope, octets: bytes) -> None:
        """None is refused."""

    def header_from(self, session: Session, mailbox: Mailbox) -> None:
        """Nobody is the boss."""
        if mailbox.local_part == "boss":
            raise Refusal(Reply(550, "5.7.1", ("That is not you",)))


@implementer(IUsers)
class FakeUsers:
    """Knows alice, whose secret is wonderland; for `mallory` the users can't be read."""

    async def mechanisms(self, session: Session) -> Sequence[str]:
        """PLAIN, under TLS only."""
        return ("SCRAM-SHA-256", "PLAIN") if session.tls else ("SCRAM-SHA-256",)

    async def authenticate(
        self,
        session: Session,
        mechanism: str,
        initial: bytes | None,
        challenge: Callable[[bytes], Awaitable[bytes]],
    ) -> str:
        """Compare with ``NUL user NUL secret``, asked for where it did not come at once."""
        response = await challenge(b"") if initial is None else initial
        _, user, secret = response.split(b"\0")
        if user == b"mallory":
            raise sasl.AuthenticationUnavailable
        if (user, secret) != (b"alice", b"wonderland"):
            raise sasl.AuthenticationFailed
        return "alice"

    def may_use(self, identity: str, address: Mailbox) -> bool:
        """Nobody owns an address."""
        return False


@implementer(IRole)
class Turned:
    """The role after a turn: it greets, so that it can be seen, and ends."""

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole`."""
        channel.write(b"220 turned\r\n")
        return None


@implementer(ITurnReplies)
class TurnReplies(list[Reply]):
    """The replies to a request for mail."""

    def replied(self, reply: Reply) -> None:
        """See `ITurnReplies.replied`."""
        self.append(reply)


@implementer(IReversal)
class FakeReversal:
    """Turns connections for alice, and has mail for office.example."""

    def methods(self, session: Session) -> Collection[str]:
        """All, for alice."""
        return ("TURN", "ATRN", "ETRN") if session.identity else ("ETRN",)

    async def turn(self, session: Session) -> IRole:
        """For alice."""
        if not session.identity:
            raise Refusal(replies.TURN_NEEDS_AUTH)
        return Turned()

    async def atrn(self, session: Session, domains: Sequence[str]) -> IRole:
        """For alice and her domain."""
        if not session.identity:
            raise Refusal(replies.TURN_NEEDS_AUTH)
        if set(domains) - {"office.example"}:
            raise Refusal(replies.ATRN_REFUSED)
        return Turned()

    async def etrn(self, session: Session, option: str, name: str) -> Reply:
        """For office.example."""
        if name != "office.example":
            raise Refusal(replies.ETRN_DENIED)
        return Reply(250, "2.0.0", (f"Queuing for {option}{name} started",))


@implementer(IClientTLS, ITLSContext)
class FakeTLS:
    """TLS that begins when the test calls `handshakeCompleted`; `certificate`: what is proved."""

    def __init__(self, certificate: str = "") -> None:
        self.started = 0
        self._secured = replace(SECURED, certificate=certificate)

    def for_host(self, hostname: str, security: Security, pin: str = "") -> ITLSContext:
        """See `IClientTLS.for_host`: the same for all."""
        return self

    def start(self, transport: ITLSTransport) -> None:
        """See `ITLSContext.start`."""
        self.started += 1

    def info(self, transport: ITLSTransport) -> TLSInfo:
        """See `ITLSContext.info`."""
        return self._secured


@implementer(IFirstRoles)
class OneRole:
    """The same role, without state, for all connections."""

    def __init__(self, role: IRole) -> None:
        self._role = role

    def first_role(self) -> IRole:
        """See `IFirstRoles.first_role`."""
        return self._role


def reception(
    spool: FakeSpool,
    accepted: Callable[[Message], object] = lambda message: None,
    *,
    service: Service = Service.SMTP,
    tls: ListenerTLS = ListenerTLS.OFF,
    limits: Limits | None = None,
    access: IAccessPolicy | None = None,
    users: IUsers | None = None,
    reversal: IReversal | None = None,
) -> Reception:
    """What all receivers of one listener share, around a spool in memory."""
    limits = limits or Limits()
    depot = Depot(
        HOSTNAME,
        spool,
        lambda message, session: accepted(message),
        lambda: 0.0,
        limits.message_size,
    )
    return Reception(depot, access or FakeAccessPolicy(), limits, service, tls, users, reversal)


@implementer(IMailSource)
class FakeSource:
    """Deliveries for one hop, and what became of them.

    With `waits` it awaits more mail at the end, until `give` or `finish`.
    """

    def __init__(self, deliveries: Iterable[Delivery] = (), *, waits: bool = False) -> None:
        self.outcomes: dict[str, Sequence[Outcome]] = {}
        self.given_back: list[str] = []
        self._ready = deque(deliveries)
        self._out: dict[str, Delivery] = {}
        self._waits = waits
        self._waiting: Deferred[bool] | None = None

    def give(self, delivery: Delivery) -> None:
        """There is one more."""
        self._ready.append(delivery)
        self._wake()

    def finish(self) -> None:
        """No more will come."""
        self._waits = False
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(bool(self._ready))

    @property
    def left(self) -> int:
        """How many nobody took."""
        return len(self._ready)

    async def next(self) -> Delivery | None:
        """See `IMailSource`."""
        if not self._ready:
            return None
        delivery = self._ready.popleft()
        self._out[delivery.message.id] = delivery
        return delivery

    async def wait(self) -> bool:
        """See `IMailSource`."""
        if self._ready or not self._waits:
            return bool(self._ready)
        waiting = self._waiting = Deferred(lambda _: setattr(self, "_waiting", None))
        return await waiting

    def return_unsent(self, delivery: Delivery) -> None:
        """See `IMailSource`."""
        assert self._out.pop(delivery.message.id) is delivery
        self.given_back.append(delivery.message.id)

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """Each delivery is settled once, with an outcome for each target."""
        assert self._out.pop(delivery.message.id) is delivery
        assert len(outcomes) == len(delivery.targets)
        self.outcomes[delivery.message.id] = tuple(outcomes)

    @property
    def unsettled(self) -> list[str]:
        """What was taken and not settled."""
        return list(self._out)


def delivery(
    name: str,
    content: bytes,
    envelope: Envelope,
    addresses: Sequence[Mailbox] | None = None,
) -> Delivery:
    """A message on its way to one hop; `addresses`: where aliases made others of the recipients."""
    if addresses is None:
        addresses = [recipient.forward_path for recipient in envelope.recipients]
    message = Message(name, 0.0, envelope, MemoryContent(content, content.isascii()), ())
    hop = Hop(Agent.SMTP, "peer.example", 25)
    targets = tuple(Target(number, address, hop) for number, address in enumerate(addresses))
    return Delivery(message, targets)
