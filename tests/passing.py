"""A provider that passes mail through, its office, and senders, all in memory on one fake clock."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mta.interfaces import IPassedMail
from mta.link import Link
from mta.mail import Reply
from mta.queue.pass_through import PassingSeams, PassThrough
from mta.queued import Message
from mta.session import Session
from mta.settings import HOUR, Service
from mta.smtp.receiver import Receiver
from mta.testing import ConnectionPair, FakeInspector, MemoryTransport
from tests.sides import CustomerSide, FakePeerMeter, ProviderSide, sides

BODY = b"Hello\r\n"
HEADER = b"Subject: test\r\n\r\n"
_NUMBERS = count()  # of senders, each at an address of its own
GTUBE = Reply(550, "5.7.1", ("Gtube pattern, said office.example [10.1.2.3]",))


class OctetWire(ConnectionPair):
    """A connection that breaks when so many octets have been carried, in either direction."""

    left: int | None = None

    def carry_write(self) -> bool:
        """Carry one write, or what may be carried of it."""
        is_carried = super().carry_write()
        if self.left == 0:
            self.cut()
        return is_carried

    def transmitted(self, octets: bytes) -> bytes:
        """Return what arrives of a write."""
        if self.left is not None:
            octets = octets[: self.left]
            self.left -= len(octets)
        return octets


@implementer(IPassedMail)
class Log:
    """What was logged."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def taken(self, message: Message, session: Session) -> None:
        """See `IPassedMail.taken`."""
        self.told.append("taken")

    def refused(self, message: Message, session: Session, peer: str, reply: Reply) -> None:
        """See `IPassedMail.refused`."""
        self.told.append(f"refused by {peer}: {reply}")


class Origin:
    """A sender in the internet: a connection to the provider, and what that said."""

    def __init__(self, provider: ProviderSide) -> None:
        address = IPv4Address("TCP", f"198.51.100.{next(_NUMBERS) % 256}", 4711)
        self.transport = MemoryTransport(peerAddress=address, lenient=True)
        config = replace(provider.config, service=Service.SMTP, reversal=None, users=None)
        self.link = Link(Receiver(config), provider.clock)
        self.link.ended.addErrback(lambda failure: None)
        self.link.makeConnection(self.transport)
        self.say(b"EHLO origin.example\r\n")
        self.transport.clear()

    def say(self, octets: bytes) -> None:
        """Send something."""
        self.link.dataReceived(octets)

    def send(self, *names: str, to: str = "", body: bytes = BODY, more: str = "") -> None:
        """Send a message to users of the office, and perhaps to another address."""
        addresses = [f"{name}@office.example" for name in names] + [to] * bool(to)
        commands = [f"RCPT TO:<{address}>{more}" for address in addresses]
        lines = ["MAIL FROM:<alice@client.example>", *commands, "DATA", ""]
        self.say("\r\n".join(lines).encode())
        self.transport.clear()
        self.say(HEADER + body + b".\r\n")

    @property
    def replies(self) -> list[str]:
        """The replies to content so far."""
        return self.transport.value().decode().splitlines()

    @property
    def codes(self) -> list[str]:
        """The codes of these."""
        return [reply[:3] for reply in self.replies]


class PassingCase(SynchronousTestCase):
    """The provider holds a link of the office."""

    provider: ProviderSide
    office: CustomerSide
    inspector_type: type[FakeInspector] = FakeInspector  # of the office

    def setUp(self) -> None:
        self.make()

    def make(self, *, linger: float = HOUR, link: bool = True) -> None:
        """The two, and the link between them."""
        self.inspector = self.inspector_type()
        self.provider, self.office = sides(
            "atrn", linger, HOUR, origin="trust", inspectors=[self.inspector]
        )
        self.office.dialler.wire = OctetWire
        self.log, self.counts = Log(), FakePeerMeter()
        provider = self.provider
        seams = PassingSeams(
            provider.spool, provider.runner.uncommitted, self.log, self.counts, provider.clock
        )
        passing = PassThrough({"office"}, provider.router, seams)
        provider.config = replace(provider.config, pass_through=passing)
        if link:
            self.office.customer.keep_up([self.office.peer])
            self.carry()
        self.addCleanup(self.cut)

    def origin(self) -> Origin:
        """A new sender."""
        return Origin(self.provider)

    def carry(self) -> None:
        """Carry everything there is to carry."""
        self.office.dialler.carry()

    def advance(self, seconds: int) -> None:
        """Let time pass, while connections carry what there is."""
        for _ in range(seconds):
            self.provider.clock.advance(1)
            self.carry()

    def cut(self) -> None:
        """Break all connections."""
        self.office.dialler.cut()

    @property
    def wires(self) -> list[OctetWire]:
        """The connections of the office so far."""
        return self.office.dialler.wires  # type: ignore[return-value]

    @property
    def kept(self) -> list[Message]:
        """The messages in the provider's spool."""
        return self.provider.spool.messages
