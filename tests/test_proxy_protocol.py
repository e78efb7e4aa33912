"""The PROXY protocol in front of a listener."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mta.link import LinkFactory, WaitingRoom
from mta.metrics import NullMeter
from mta.proxy_protocol import HEADER_TIMEOUT, MAX_OCTETS, Client, ProxiedFactory, client_of
from mta.service.listeners import Receivers
from mta.testing import MemorySpool
from tests.conversations import receiver_config
from tests.link.test_factory import NoRole

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TEXT = b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 25\r\n"


def binary(purpose: int, family: int, addresses: bytes) -> bytes:
    """A header of version 2."""
    return SIGNATURE + bytes((purpose, family)) + len(addresses).to_bytes(2) + addresses


BINARY4 = binary(0x21, 0x11, bytes((198, 51, 100, 7, 192, 0, 2, 1)) + b"\x12\x67\0\x19")
BINARY6 = binary(0x21, 0x21, bytes.fromhex("20010db8" + "00" * 11 + "07" + "00" * 16 + "12670019"))

HEADERS = {
    TEXT: Client("198.51.100.7", 4711),
    b"PROXY TCP6 2001:DB8::7 ::1 4711 25\r\n": Client("2001:db8::7", 4711),
    b"PROXY UNKNOWN\r\n": Client(),
    b"PROXY UNKNOWN ff:ff ff:ff 1 2\r\n": Client(),
    BINARY4: Client("198.51.100.7", 4711),
    BINARY4[:15] + b"\x10" + BINARY4[16:] + b"\x04\0\x01x": Client(
        "198.51.100.7", 4711
    ),  # and a TLV
    BINARY6: Client("2001:db8::7", 4711),
    binary(0x20, 0x00, b""): Client(),
    binary(0x21, 0x00, b""): Client(),
}
NO_HEADERS = (
    b"EHLO client.example\r\n",
    b"\x16\x03\x01",
    b"PROXY\r\n",
    b"PROXY TCP4 nowhere 192.0.2.1 4711 25\r\n",
    b"PROXY TCP4 198.51.100.7\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.1\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.1 4711\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.1 70000 25\r\n",
    b"PROXY UDP4 198.51.100.7 192.0.2.1 4711 25\r\n",
    b"PROXY UNKNOWN " + b"x" * 107,
    binary(0x22, 0x11, b""),
    binary(0x11, 0x11, b"x" * 12),
    binary(0x21, 0x12, b"x" * 12),
    binary(0x21, 0x11, b"x" * 11),
    binary(0x21, 0x21, b"x" * 35),
    binary(0x21, 0x31, b"x" * 216),
    SIGNATURE + b"\x21\x11" + (MAX_OCTETS + 1).to_bytes(2),
)


class HeaderTests(SynchronousTestCase):
    """Octets to addresses."""

    def test_headers(self) -> None:
        """The client's address, and what follows the header, however it is cut."""
        for header, client in HEADERS.items():
            self.assertEqual(client_of(header + b"EHLO x"), (client, b"EHLO x"), header)
            for end in range(len(header)):
                self.assertIsNone(client_of(header[:end]), header[:end])

    def test_no_headers(self) -> None:
        """Everything else is refused."""
        for octets in NO_HEADERS:
            with self.assertRaises(ValueError, msg=octets):
                client_of(octets)

    @given(st.binary(max_size=300), st.sampled_from([b"", SIGNATURE, b"PROXY ", b"PROXY TCP4 "]))
    def test_nothing_else_is_raised(self, octets: bytes, start: bytes) -> None:
        """Whatever is sent, memory stays bounded: read, refused, or soon one of them."""
        try:
            found = client_of(start + octets)
        except ValueError:
            return
        self.assertTrue(found or len(start + octets) < MAX_OCTETS + 16)


class ProxiedTests(SynchronousTestCase):
    """A receiver behind a proxy."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.links = LinkFactory(self.clock, WaitingRoom(self.clock))
        self.factory = ProxiedFactory(self.links, self.clock)
        shared = receiver_config(MemorySpool())
        self.links.serve(Receivers(shared, NullMeter()))

    def connect(self) -> StringTransport:
        """A connection of the proxy."""
        proxy = IPv4Address("TCP", "192.0.2.9", 1234)
        transport = StringTransport(peerAddress=proxy)
        transport.protocol = self.factory.buildProtocol(proxy)  # type: ignore[attr-defined]
        transport.protocol.makeConnection(transport)  # type: ignore[attr-defined]
        return transport

    def say(self, transport: StringTransport, octets: bytes) -> None:
        """As Twisted does it: whoever is the protocol now gets what arrived."""
        transport.protocol.dataReceived(octets)  # type: ignore[attr-defined]

    def client(self) -> str:
        """The address that the only link has."""
        (link,) = self.links.links
        return link.remote_address

    def test_nobody_is_greeted_before_the_header(self) -> None:
        """The greeting comes once it is known for whom, without the client saying a word."""
        transport = self.connect()
        for octet in TEXT[:-1]:
            self.say(transport, bytes((octet,)))
            self.assertEqual(transport.value(), b"")
        self.say(transport, TEXT[-1:])
        self.assertTrue(transport.value().startswith(b"220 "))
        self.assertEqual(self.client(), "198.51.100.7")

    def test_a_client_that_is_not_taken(self) -> None:
        """Its connection is closed, and nothing that it says is heard."""
        self.links.serve(NoRole())
        transport = self.connect()
        self.say(transport, TEXT + b"NOOP\r\n")
        self.assertTrue(transport.disconnecting)
        self.assertEqual((transport.value(), self.links.links), (b"", set()))

    def test_what_follows_the_header_is_read(self) -> None:
        """A command in the same segment is not lost."""
        transport = self.connect()
        self.say(transport, TEXT + b"NOOP\r\n")
        self.assertIn(b"\r\n250 2.0.0", transport.value())

    def test_a_client_that_is_not_told(self) -> None:
        """It has no address, and none of the rights that the proxy's own would give."""
        for header in (binary(0x20, 0x00, b""), binary(0x21, 0x00, b""), b"PROXY UNKNOWN\r\n"):
            self.say(self.connect(), header)
            self.assertEqual(self.client(), "unknown")
            self.links.links.clear()

    def test_no_proxy(self) -> None:
        """Who comes without a header is thrown out, and never heard."""
        transport = self.connect()
        self.say(transport, b"EHLO client.example\r\n")
        self.assertTrue(transport.disconnected)
        self.assertEqual((transport.value(), self.links.links), (b"", set()))

    def test_no_header_in_time(self) -> None:
        """Nor may one wait for ever."""
        transport = self.connect()
        self.say(transport, TEXT[:20])
        self.clock.advance(HEADER_TIMEOUT)
        self.assertTrue(transport.disconnected)
