"""The link: its interfaces, its roles, TLS."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from zope.interface.verify import verifyObject

from mta.interfaces import IChannel, IRole
from mta.link import Link
from mta.link.link import HANDSHAKE_TIMEOUT
from mta.session import ChannelLost, HandshakeFailed
from mta.testing import MemoryTransport
from mta.testing.connections import SECURED
from tests.link.cases import LinkTestCase, Role


class InterfaceTests(LinkTestCase):
    """What a link is."""

    def test_a_link_is_a_channel(self) -> None:
        """And what Twisted asks of a protocol of its kind."""
        link = self.link(self.reads)
        for interface in (IChannel, IPushProducer, IHandshakeListener, IHalfCloseableProtocol):
            self.assertTrue(verifyObject(interface, link))
        link.stopProducing()
        link.writeConnectionLost()

    def test_the_peer(self) -> None:
        """An address, or that it is on this machine."""
        self.transport.peerAddr = IPv4Address("TCP", "192.0.2.1", 1025)
        link = self.link(self.reads)
        self.assertEqual((link.remote_address, link.remote_port), ("192.0.2.1", 1025))
        for shown, address in (
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),  # on a socket that takes both families
        ):
            self.transport = MemoryTransport(peerAddress=IPv6Address("TCP", shown, 1025))
            self.assertEqual(self.link(self.reads).remote_address, address)
        self.transport = MemoryTransport(peerAddress=UNIXAddress("/x"))
        link = self.link(self.reads)
        self.assertEqual((link.remote_address, link.remote_port), ("unix", 0))


class RolesTests(LinkTestCase):
    """One role after the other on one connection."""

    def test_the_role_that_ends_names_the_next(self) -> None:
        """It finds what the first one left unread."""

        async def second(channel: IChannel) -> None:
            self.log.append(channel.wire.take().decode())

        async def first(channel: IChannel) -> IRole | None:
            await channel.receive(channel.seconds() + 10.0)
            self.log.append(channel.wire.take(3).decode())
            return Role(second)

        link = self.link(first)
        link.dataReceived(b"onetwo")
        self.assertEqual(self.log, ["one", "two"])
        self.assertIsNone(self.successResultOf(link.ended))


class TLSTests(LinkTestCase):
    """TLS on the way, and from the start."""

    async def upgrades(self, channel: IChannel) -> None:
        """A conversation that begins TLS in the middle."""
        await channel.receive(channel.seconds() + 10.0)
        await channel.start_tls()
        self.log.append(str(channel.wire.take()))

    def test_tls_begins(self) -> None:
        """What was unread in the clear is gone."""
        link = self.link(self.upgrades)
        link.dataReceived(b"forged")
        self.assertEqual((self.tls.started, link.tls, self.log), (1, None, []))
        link.handshakeCompleted()
        self.assertEqual((link.tls, self.log), (SECURED, ["b''"]))
        self.assertIsNone(self.successResultOf(link.ended))

    def test_tls_does_not_begin(self) -> None:
        """The peer goes away, or does not go on."""
        link = self.link(self.upgrades)
        link.dataReceived(b"x")
        self.lose(link)
        self.assert_lost(link, HandshakeFailed)
        self.transport = MemoryTransport()
        link = self.link(self.upgrades)
        link.dataReceived(b"x")
        self.clock.advance(HANDSHAKE_TIMEOUT)
        self.assert_lost(link, HandshakeFailed)

    def test_tls_on_a_connection_that_is_gone(self) -> None:
        """It went while something else was waited for: TLS is not even begun."""
        work: Deferred[None] = Deferred()

        async def conversation(channel: IChannel) -> None:
            await work
            await channel.start_tls()

        for end in (self.lose, Link.readConnectionLost):
            work, self.transport = Deferred(), MemoryTransport()
            link = self.link(conversation)
            end(link)
            work.callback(None)
            self.assert_lost(link, HandshakeFailed)
        self.assertEqual(self.tls.started, 0)

    def test_tls_at_once(self) -> None:
        """The conversation begins after the handshake, and has all its time."""
        link = self.link(self.reads, tls_at_once=True)
        self.assertEqual(self.tls.started, 1)
        self.clock.advance(HANDSHAKE_TIMEOUT - 1)
        link.handshakeCompleted()
        self.assertEqual(link.tls, SECURED)
        self.clock.advance(9)
        link.dataReceived(b"x")
        self.assertEqual(self.log, ["x"])

    def test_tls_at_once_that_does_not_come(self) -> None:
        """There is no conversation at all."""
        for end in (self.lose, lambda _: self.clock.advance(HANDSHAKE_TIMEOUT)):
            self.transport = MemoryTransport()
            link = self.link(self.reads, tls_at_once=True)
            end(link)
            lost = self.failureResultOf(link.ended).value
            self.assertIsInstance(lost, ChannelLost)
        self.assertEqual(self.log, [])
        self.assertTrue(self.transport.disconnecting)
