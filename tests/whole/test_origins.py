"""True origins over a turned connection, in memory: evidence at the office, and no right there."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.access import AccessPolicy
from mta.access.counters import Counters
from mta.interfaces import IRole
from mta.link import Link
from mta.mail import Envelope, Mailbox, Recipient, Security
from mta.queued import Message
from mta.session import LOCAL_ADDRESS, Origin, Session, Testimony
from mta.settings import Limits, Relay, Service
from mta.smtp.receiver import Receiver
from mta.testing import FakeInspector, MemoryTransport
from tests.sides import ALICE, BOB, SECURED, CustomerSide, ProviderSide, sides
from tests.whole import test_reversed_pairs

SPIKE = Origin("198.51.100.7", "spike.example", 4711, "spike", "ESMTPS", service="smtp")
NETWORKS = (ip_network("127.0.0.0/8"), ip_network("::1/128"), ip_network("10.0.0.0/8"))
FORGED = ("127.0.0.1", "::1", "IPV6:::1", "::ffff:127.0.0.1", "10.1.2.3")


class OriginCase(SynchronousTestCase):
    """A relay and its office."""

    provider: ProviderSide
    office: CustomerSide

    def make(self, origin: str = "trust", **limits: int) -> None:
        """The two; clients in the office's networks may relay there."""
        self.inspector = FakeInspector()
        self.provider, self.office = sides(origin=origin)
        self.accepted: list[tuple[Message, Session | None]] = []
        office = self.office
        accept = office.accepted
        counters = Counters(office.clock)
        counters.use(Limits(**limits))
        office.access = AccessPolicy(
            Relay(NETWORKS), Limits(**limits), [office.peer], office.router, None, counters
        )
        office.configure(access=office.access, inspectors=[self.inspector])

        def accepted(message: Message, session: Session) -> None:
            self.accepted.append((message, session.forwarded))
            accept(message, session)

        self.patch(office, "accepted", accepted)

    def exchange(self) -> None:
        """One whole exchange."""
        exchanging = self.office.exchange()
        self.office.dialler.carry()
        self.successResultOf(exchanging)

    def received(self) -> bytes:
        """The first field of what was delivered last at the office."""
        return self.office.shelf.contents[-1].partition(b";")[0]


class OriginTests(OriginCase):
    """The relay tells, and the office takes it for what it is."""

    def test_the_office_knows(self) -> None:
        """Message, Received:, inspectors and log have the client that came to the relay."""
        self.make()
        self.provider.put(BOB, b"hello\r\n", SPIKE)
        (waiting,) = self.provider.spool.messages
        self.exchange()
        ((message, client),) = self.accepted
        told = replace(SPIKE, turned_peer="provider", told_by="provider", told_id=waiting.id)
        self.assertEqual(message.origin, told)
        self.assertEqual(self.inspector.origins, [told])
        self.assertTrue(message.envelope.outside)
        assert client is not None
        self.assertEqual((client.client, client.name), ("198.51.100.7", "spike.example"))
        self.assertEqual(
            self.received(),
            b"Received: from spike (spike.example [198.51.100.7])\r\n\tby office.example"
            b" via provider with ESMTPS id "
            + message.id.encode()
            + b"\r\n\tfor <bob@office.example>",
        )
        self.assertEqual(
            [name for name in self.inspector.asked if name in ("connected", "hello", "close")],
            ["connected", "hello", "connected", "hello", "close", "close"],
        )
        self.assertIn(("connected", "198.51.100.7"), self.inspector.seen)
        self.assertIn(("hello", "spike"), self.inspector.seen)

    def test_each_message_has_its_own(self) -> None:
        """What one transaction told is nothing to the next."""
        self.make()
        origins = [SPIKE, Origin("2001:db8::1"), Origin("203.0.113.9", hello="other")]
        for origin in origins:
            self.provider.put(BOB, b"hello\r\n", origin)
        self.exchange()
        found = [message.origin for message, _ in self.accepted]
        self.assertEqual([each.address for each in found], [each.address for each in origins])
        self.assertEqual([each.hello for each in found], ["spike", "", "other"])
        self.assertEqual([each.name for each in found], ["spike.example", "", ""])

    def test_no_trust(self) -> None:
        """Without `origin: trust` nothing is offered, told or believed."""
        self.make("off")
        self.provider.put(BOB, b"hello\r\n", SPIKE)
        exchanging = self.office.exchange()
        wire = self.office.dialler.wires[0]
        heard = b""
        while wire.carry():
            self.provider.clock.advance(0)
            heard += b"".join(wire._server_end.stream + wire._client_end.stream)
        self.successResultOf(exchanging)
        self.assertNotIn(b"XFORWARD", heard)
        ((message, client),) = self.accepted
        self.assertEqual((message.origin.told_by, client), ("", None))

    def test_a_peer_that_proved_nothing(self) -> None:
        """Trust takes a peer that we dial, and TLS that proves who it is."""
        self.make()
        peer = self.office.peer
        self.assertTrue(peer.is_trusted_with_origins)
        for other in (
            replace(peer, tls=Security.OFF),
            replace(peer, connect=None, user="provider"),
            replace(peer, origin="off"),
        ):
            self.assertFalse(other.is_trusted_with_origins)

    def test_mail_of_the_relay(self) -> None:
        """Its users and programs are its own: inspectors look at the relay, as without XFORWARD."""
        self.make()
        envelope = Envelope(ALICE, (Recipient(BOB),))
        origin = Origin(LOCAL_ADDRESS, user="1000", service="sendmail")
        self.provider.spool.add(envelope, b"Subject: x\r\n\r\nhello\r\n", origin)
        self.provider.runner.wake()
        self.provider.clock.advance(0)
        self.exchange()
        ((message, _),) = self.accepted
        self.assertTrue(message.origin.is_internal_there)
        self.assertEqual((message.origin.address, message.origin.user), ("unknown", ""))
        self.assertEqual(self.inspector.asked.count("connected"), 1)

    def test_limits_count_the_client(self) -> None:
        """One client of the relay is slowed, the others are not."""
        self.make(messages_per_minute=2)
        for address in ("198.51.100.7", "198.51.100.7", "198.51.100.7", "198.51.100.8"):
            self.provider.put(BOB, b"hello\r\n", Origin(address))
        self.exchange()
        self.assertEqual(
            [message.origin.address for message, _ in self.accepted],
            ["198.51.100.7", "198.51.100.7", "198.51.100.8"],
        )
        self.assertEqual(len(self.provider.spool.messages), 1)


class CutTests(test_reversed_pairs.CutTests):
    """The connection breaks anywhere, also behind XFORWARD, and nothing is lost."""

    origin = "trust"


class EvidenceTests(OriginCase):
    """An origin gives no right, whatever it is: a peer may have been taken over."""

    def replies(self, attributes: str, *commands: str) -> list[str]:
        """The office's replies to a peer that tells this, and then says these commands."""
        self.make()
        config = replace(self.office.config, takes_origins=True, inspectors=())
        role: IRole = Receiver(config, turned_peer="provider")
        link = Link(role, self.provider.clock)
        link.tls = SECURED
        transport = _transport(link)
        link.dataReceived(b"EHLO provider.example\r\n")
        transport.clear()
        link.dataReceived("".join(f"{each}\r\n" for each in (attributes, *commands)).encode())
        return [line[:9] for line in transport.value().decode().splitlines()]

    def assert_no_right(self, attributes: str) -> None:
        """It relays nothing, and it is an outsider's."""
        self.assertEqual(
            self.replies(
                f"XFORWARD {attributes}",
                "MAIL FROM:<boss@office.example>",
                "RCPT TO:<victim@elsewhere.example>",
                "RCPT TO:<carol@outside.example>",
                "RCPT TO:<bob@office.example>",
            ),
            ["250 2.0.0", "250 2.1.0", "550 5.7.1", "550 5.7.1", "250 2.1.5"],
            attributes,
        )

    def test_our_networks(self) -> None:
        """This host, and the networks that may relay."""
        for address in FORGED:
            self.assert_no_right(f"ADDR={address} NAME=localhost HELO=localhost SOURCE=LOCAL")
            self.assert_no_right(f"ADDR={address} SOURCE=REMOTE")

    def test_a_user(self) -> None:
        """A protocol that says somebody logged in, and no way to say who."""
        self.assert_no_right("PROTO=ESMTPSA NAME=alice HELO=alice IDENT=alice SOURCE=LOCAL")
        for word in ("LOGIN=alice", "ADDR=unix", "ADDR=sendmail"):
            replies = self.replies(f"XFORWARD {word}", "AUTH PLAIN AGEAYg==")
            self.assertEqual(replies, ["501 5.5.4", "502 5.5.1"])

    def test_outsiders(self) -> None:
        """The policy trusts no session that was told, and a proxy keeps its own rights alone."""
        self.make()
        for address in ("127.0.0.1", "::1", "10.1.2.3", LOCAL_ADDRESS):
            for identity in ("", "alice"):
                told = self.told(address, identity=identity)
                self.assertTrue(self.office.access.is_outsider(told), address)
                proxy = Session(told.service, "192.0.2.1", None, forwarded=told)
                self.assertTrue(self.office.access.is_outsider(proxy), address)
                rcpt = self.office.access.rcpt(
                    proxy, ALICE, Recipient(Mailbox("victim", "elsewhere.example"))
                )
                failed: Any = self.failureResultOf(Deferred.fromCoroutine(rcpt))
                self.assertEqual(failed.value.reply.code, 550)

    def told(self, address: str, identity: str = "") -> Session:
        """A client that was told."""
        return Session(
            Service.SMTP,
            address,
            None,
            identity=identity,
            told=Testimony("provider", "1", "ESMTPA"),
        )


def _transport(link: Link) -> MemoryTransport:
    transport = MemoryTransport(lenient=True)
    link.makeConnection(transport)
    return transport
