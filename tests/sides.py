"""Two mail servers in memory that change roles: a provider and a customer, on one fake clock.

All is real but the spool, the local delivery and the network: runner, access policy, reversal,
exchange, links.  What a wire carries, and when it breaks, is up to the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from mta.access import AccessPolicy
from mta.access.counters import Counters
from mta.access.turning import Reversal
from mta.delivery.dialler import Dialler, Transfer
from mta.interfaces import IAcceptedMail, IHeldMailWatch, IInspector, IPeerMeter, IRole
from mta.link import Link
from mta.mail import (
    Agent,
    Envelope,
    Hop,
    Mailbox,
    Outcome,
    Recipient,
    Reply,
    Security,
    Status,
)
from mta.metrics import NullMeter
from mta.peer_settings import Verify
from mta.peers.customer import Customer
from mta.peers.held import HeldMail
from mta.peers.provider import Provider
from mta.peers.status_files import EndedExchange
from mta.peers.status_log import PeerStatusLog
from mta.peers.tally import Tally
from mta.queue.config import RunnerConfig
from mta.queue.runner import Runner
from mta.queued import HopFailure, Message
from mta.session import UNKNOWN_ORIGIN, ChannelLost, LinkKind, Origin, Session, TLSInfo
from mta.settings import Limits, Peer, Queue, Relay, Service
from mta.smtp.errors import PeerFault
from mta.smtp.opening import SenderConfig
from mta.smtp.receiver import Receiver
from mta.smtp.receiver_config import ReceiverConfig
from mta.smtp.second_copies import SecondCopies
from mta.testing import (
    ConnectionPair,
    FakeAgent,
    FakeHeldMailWatch,
    FakeNotices,
    FakeRouter,
    FakeUsers,
    MemorySpool,
)

BOB, CAROL = Mailbox("bob", "office.example"), Mailbox("carol", "outside.example")
ALICE = Mailbox("alice", "client.example")
SECURED = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", certificate="ab" * 32)
LOCAL = Hop(Agent.PIPE, "/bin/shelf")
TO_PROVIDER = Hop(Agent.HOLD, "provider")
REFUSED = Outcome(Status.DEFERRED, Reply(451, "4.4.2", ("The connection failed",)))
DELIVERED = Outcome(Status.DELIVERED, Reply(250, "2.0.0", ("OK",)))


async def _read(message: Message) -> bytes:
    return b"".join([piece async for piece in message.content.pieces()])


def _users() -> FakeUsers:
    return FakeUsers({"office": "secret"}, ["PLAIN"], owns_all=True)


class FakeStatusLog:
    """Remembers what was noted last, and how many links stand."""

    def __init__(self) -> None:
        self.links = 0
        self.notes: dict[str, object] = {}
        self.errors: dict[str, list[object]] = {}
        self.exchanges: list[EndedExchange] = []

    def note(self, peer: str, **changes: object) -> None:
        """See `PeerStatusLog`."""
        self.notes.update(changes)
        if changes.get("last_error"):
            self.errors.setdefault(peer, []).append(changes["last_error"])

    def ended(self, peer: str, exchange: EndedExchange) -> None:
        """See `PeerStatusLog`."""
        self.exchanges.append(exchange)
        counts = {"sent": exchange.sent, "received": exchange.received}
        self.note(peer, last_exchange=exchange.ended, last_error=exchange.error, **counts)

    def failed(self, peer: str, exchange: EndedExchange) -> None:
        """See `PeerStatusLog`."""
        self.exchanges.append(exchange)
        self.note(peer, last_error=exchange.error)

    def link(self, peer: str, kind: LinkKind = LinkKind.MAIN) -> AbstractContextManager[object]:
        """See `PeerStatusLog`."""
        return self if kind is LinkKind.MAIN else nullcontext()

    def __enter__(self) -> None:
        self.links += 1

    def __exit__(self, *_: object) -> None:
        self.links -= 1


@implementer(IPeerMeter)
class FakePeerMeter:
    """Remembers what was counted."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, ...]] = []

    def answered(self, peer: str, source: str) -> None:
        """See `IPeerMeter.answered`."""
        self.counted.append((peer, "answered", source))

    def passed_through(self, peer: str) -> None:
        """See `IPeerMeter.passed_through`."""
        self.counted.append((peer, "passed through"))

    def refused(self, peer: str) -> None:
        """See `IPeerMeter.refused`."""
        self.counted.append((peer, "refused"))

    def sealed(self, peer: str) -> None:
        """See `IPeerMeter.sealed`."""
        self.counted.append((peer, "sealed"))


@implementer(IAcceptedMail)
class Side:
    """One mail server: its spool, its runner, and what arrived here for good."""

    def __init__(self, clock: Clock, name: str, domain: str, elsewhere: Hop, peer: Peer) -> None:
        self.clock = clock
        self.hostname = f"{name}.example"
        self.peer = peer
        self.shelf = FakeAgent(DELIVERED)
        self.status = FakeStatusLog()
        self.meter = FakePeerMeter()
        self.router = FakeRouter({domain: LOCAL}, elsewhere)
        self.spool = MemorySpool(clock.seconds)
        self.runner = Runner(self.spool, clock, NullMeter(), now=clock.seconds)
        self.held = HeldMail(self.spool, self.runner)
        self.access = AccessPolicy(
            Relay(()), Limits(), [peer], self.router, _users(), Counters(clock)
        )
        self.config = ReceiverConfig(
            self.hostname,
            self.spool,
            self,
            self.access,
            Limits(),
            clock.seconds,
            second_copies=SecondCopies(self.spool),
        )

    def start(self, watch: IHeldMailWatch) -> None:
        """Begin to deliver."""
        agents = {Agent.PIPE: self.shelf}
        peers = {self.peer.name: self.peer}
        self.runner.use(RunnerConfig(self.router, agents, FakeNotices(), Queue(), peers, watch))
        self.runner.start()

    def accepted(self, message: Message, session: Session) -> None:
        """See `IAcceptedMail.accepted`."""
        self.runner.accept(message)

    def put(self, forward_path: Mailbox, body: bytes, origin: Origin | None = None) -> None:
        """A message that another process put into the spool, perhaps from an outsider."""
        envelope = Envelope(ALICE, (Recipient(forward_path),), outside=origin is not None)
        self.spool.add(envelope, b"Subject: test\r\n\r\n" + body, origin or UNKNOWN_ORIGIN)
        self.runner.wake()
        self.clock.advance(0)

    def take(self, forward_path: Mailbox, body: bytes) -> None:
        """A message that came in just now."""
        draft = self.spool.draft()
        draft.data = body
        envelope = Envelope(ALICE, (Recipient(forward_path),))
        committing = Deferred.fromCoroutine(
            self.spool.commit(draft, envelope, b"Subject: test\r\n\r\n", UNKNOWN_ORIGIN)
        )
        committing.addCallback(self.runner.accept)
        self.clock.advance(0)

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of what was delivered here."""
        return [each.partition(b"\r\n\r\n")[2] for each in self.shelf.contents]

    def waiting(self) -> list[bytes]:
        """The bodies of the messages in the spool."""
        octets: list[bytes] = []
        for message in self.spool.messages:
            reading = Deferred.fromCoroutine(_read(message))
            reading.addCallback(octets.append)
        return [each.partition(b"\r\n\r\n")[2] for each in octets]

    @property
    def typed_status(self) -> PeerStatusLog:
        """The status log, for code that asks for the real one."""
        return cast(PeerStatusLog, self.status)


class ProviderSide(Side):
    """Holds mail for office.example; carol@outside.example is here."""

    def __init__(self, clock: Clock, peer: Peer, service: Service) -> None:
        super().__init__(clock, "provider", "outside.example", Hop(Agent.HOLD, "office"), peer)
        self.router.ours.add("office.example")
        self.provider = Provider(
            self.hostname, self.shelf, self.held, self.typed_status, self.meter, clock
        )
        reversal = Reversal([peer], self.held, self.provider)
        self.config = replace(self.config, service=service, users=_users(), reversal=reversal)
        self.start(FakeHeldMailWatch())

    def role(self) -> IRole:
        """What a connection begins with here."""
        return Receiver(self.config)


class FakeDialler:
    """Makes every connection to one provider, of which the test carries the writes.

    `wires` are the connections so far; while it `refuses` there are none.
    """

    wire: type[ConnectionPair] = ConnectionPair

    def __init__(self, provider: ProviderSide) -> None:
        self.wires: list[ConnectionPair] = []
        self.refuses = False
        self._provider = provider

    async def converse(self, hop: Hop, transfer: Transfer) -> None:
        """See `Dialler`."""
        if self.refuses:
            raise HopFailure(REFUSED)
        clock = self._provider.clock
        config = SenderConfig(
            "office.example", security=hop.security, user=hop.user, secret=hop.secret
        )
        client, server = (
            Link(transfer.new_sender(config), clock),
            Link(self._provider.role(), clock),
        )
        client.tls = server.tls = SECURED
        server.ended.addErrback(lambda failure: failure.trap(ChannelLost, PeerFault))
        self.wires.append(self.wire(client, server))
        try:
            await client.ended
        except (ChannelLost, PeerFault) as error:
            raise HopFailure(REFUSED) from error

    def close_gently(self) -> None:
        """See `Dialler`."""
        for wire in self.wires:
            if not wire.is_cut:
                wire.client.close_gently()

    def carry(self) -> None:
        """Carry everything there is to carry."""
        while sum(wire.carry() for wire in self.wires):
            self._provider.clock.advance(0)

    def cut(self) -> None:
        """Break all connections."""
        for wire in self.wires:
            wire.cut()


class CustomerSide(Side):
    """Has bob@office.example, and sends everything else through the provider."""

    def __init__(
        self, provider: ProviderSide, peer: Peer, inspectors: Sequence[IInspector] = ()
    ) -> None:
        super().__init__(provider.clock, "office", "office.example", TO_PROVIDER, peer)
        self.dialler = FakeDialler(provider)
        self.configure(inspectors=inspectors)
        self.start(self.customer)

    def configure(self, **changes: Any) -> None:
        """Change what its receivers have, from the next connection on."""
        self.config = replace(self.config, **changes)
        dialler = cast(Dialler, self.dialler)
        self.customer = Customer(dialler, self.config, self.held, self.typed_status, self.clock)

    def exchange(self) -> Deferred[Tally]:
        """Begin one exchange."""
        return Deferred.fromCoroutine(self.customer.exchange(self.peer))


def sides(
    method: str = "atrn",
    linger: float = 0.0,
    every: float = 0.0,
    *,
    origin: str = "off",
    links: int = 1,
    verify: Verify = Verify.LIST,
    inspectors: Sequence[IInspector] = (),
) -> tuple[ProviderSide, CustomerSide]:
    """A provider and a customer that are for each other.

    Where the customer trusts in an `origin`, it knows the provider by TLS.  The `inspectors` are
    the customer's.
    """
    clock = Clock()
    clock.advance(1_700_000_000)
    office = Peer("office", ("office.example",), user="office", linger=linger, verify=verify)
    connect = Hop(Agent.SMTP, "provider.example", 465, user="office", secret="secret")
    provider = Peer(
        "provider",
        ("office.example",),
        connect=connect,
        tls=Security.VERIFY if origin == "trust" else Security.OFF,
        method=method,
        every=every,
        origin=origin,
        links=links,
    )
    service = Service.SUBMISSION if method == "atrn" else Service.SMTP
    there = ProviderSide(clock, office, service)
    return there, CustomerSide(there, provider, inspectors)
