"""The octets that go out: writes, direct writes, back pressure."""

from __future__ import annotations

from socket import socket

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mta.interfaces import IChannel
from mta.link import Link, LinkFactory, WaitingRoom
from mta.link.link import MAX_UNREAD
from mta.link.output import MAX_UNSENT
from mta.session import ChannelTimeout
from mta.testing import MemoryTransport
from tests.link.cases import Conversation, LinkTestCase, Role


class WritingTests(LinkTestCase):
    """When that which a conversation says goes out."""

    def setUp(self) -> None:
        super().setUp()
        self.writes: list[bytes] = []
        self.transport.write = self.writes.append  # type: ignore[method-assign,assignment]

    def test_together(self) -> None:
        """All that it says before it waits is one write."""

        async def conversation(channel: IChannel) -> None:
            channel.write(b"MAIL FROM:<>\r\n")
            channel.write(b"RCPT TO:<bob@example.com>\r\n")
            await channel.receive(channel.seconds() + 10.0)
            channel.write(b"RSET\r\n")
            channel.write(b"QUIT\r\n")

        link = self.link(conversation)
        self.assertEqual(self.writes, [b"MAIL FROM:<>\r\nRCPT TO:<bob@example.com>\r\n"])
        link.dataReceived(b"250 OK\r\n")
        self.assertEqual(self.writes[1:], [b"RSET\r\nQUIT\r\n"])

    def test_much(self) -> None:
        """Nobody collects more than that without a write."""

        async def conversation(channel: IChannel) -> None:
            for _ in range(3):
                channel.write(bytes(MAX_UNSENT // 2 + 1))
            self.log.append(str(len(self.writes)))

        self.link(conversation)
        self.assertEqual(self.log, ["1"])

    def test_before_tls(self) -> None:
        """What was said in the clear does not go out encrypted."""

        async def conversation(channel: IChannel) -> None:
            channel.write(b"220 Go ahead\r\n")
            await channel.start_tls()

        self.tls.start = self.writes.append  # type: ignore[method-assign,assignment]
        self.link(conversation)
        self.assertEqual(self.writes, [b"220 Go ahead\r\n", self.transport])

    def test_small_segments_go_out_at_once(self) -> None:
        """Nagle's algorithm would let them wait for an acknowledgement (RFC 896)."""
        server = Connection(socket(), LinkFactory(self.clock, WaitingRoom(self.clock)))
        self.addCleanup(server.socket.close)
        server.getPeer = lambda: IPv4Address("TCP", "192.0.2.1", 1025)  # type: ignore[method-assign]
        Link(Role(self.reads), self.clock).makeConnection(server)
        self.assertTrue(server.getTcpNoDelay())


class Line(Connection):
    """A TCP connection whose system takes only so many octets at once."""

    def __init__(self) -> None:
        super().__init__(socket(), LinkFactory(Clock(), WaitingRoom(Clock())), MemoryReactorClock())
        self.room = 10_000
        self.connected = True
        self.sent = b""
        self.turns = 0  # of the reactor, to send what the system did not take at once

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 1025)

    def writeSomeData(self, data: bytes) -> int:
        count = min(self.room, len(data))
        self.sent += bytes(data[:count])
        return count

    def turn(self) -> None:
        """The reactor finds that the system has room again."""
        self.turns += 1
        self.doWrite()


class DirectWriteTests(SynchronousTestCase):
    """Octets go past the transport, where none wait in it."""

    def setUp(self) -> None:
        self.line = Line()
        self.addCleanup(self.line.socket.close)
        self.channels: list[IChannel] = []
        self.waits: list[bool | None] = []

    async def echo(self, channel: IChannel) -> None:
        """Say what was said."""
        while True:
            await channel.receive(channel.seconds() + 60.0)
            channel.write(channel.wire.take())

    def link(self, conversation: Conversation) -> Link:
        """A connected link."""
        link = Link(Role(conversation), Clock())
        link.makeConnection(self.line)
        return link

    def test_again_after_a_short_write(self) -> None:
        """When the rest is sent, nothing waits any more."""
        link = self.link(self.echo)
        self.line.room = 2
        link.dataReceived(b"12345")
        self.assertEqual(self.line.sent, b"12")
        link.dataReceived(b"678")
        self.assertEqual(self.line.sent, b"12")  # in order
        self.line.room = 10_000
        self.line.turn()
        self.assertEqual(self.line.sent, b"12345678")
        link.dataReceived(b"90")
        self.assertEqual(self.line.sent, b"1234567890")
        self.assertEqual(self.line.turns, 1)

    def test_several_short_writes(self) -> None:
        """Each time anew."""
        link = self.link(self.echo)
        for number in range(5):
            self.line.room = 1
            link.dataReceived(b"ab")
            self.assertEqual(len(self.line.sent), 2 * number + 1)
            self.line.turn()
        self.assertEqual(self.line.sent, b"ab" * 5)

    def test_nobody_is_woken_for_it(self) -> None:
        """A conversation that waits for something else goes on waiting."""

        async def never() -> bool:
            return await Deferred()

        async def conversation(channel: IChannel) -> None:
            self.line.room = 1
            channel.write(b"12")
            self.waits.append(await channel.wait_idle(never(), 10.0))

        self.link(conversation)
        self.line.turn()
        self.assertEqual((self.line.sent, self.waits), (b"12", []))


class PressureTests(LinkTestCase):
    """Neither side makes the other pile up octets in memory."""

    def test_reading_pauses_while_much_is_unread(self) -> None:
        """And goes on when it has been read."""
        work: Deferred[None] = Deferred()

        async def conversation(channel: IChannel) -> None:
            await channel.receive(channel.seconds() + 10.0)
            await work
            await self.reads(channel)

        link = self.link(conversation)
        link.dataReceived(b"x" * MAX_UNREAD)
        self.assertEqual(self.transport.producerState, "producing")
        link.dataReceived(b"x")
        self.assertEqual(self.transport.producerState, "paused")
        link.wire.take()
        work.callback(None)
        self.assertEqual(self.transport.producerState, "producing")

    def test_a_conversation_that_does_not_read_enough(self) -> None:
        """Reading stays paused while too much is left."""
        work: Deferred[None] = Deferred()

        async def conversation(channel: IChannel) -> None:
            await channel.receive(channel.seconds() + 10.0)
            await work
            await channel.receive(channel.seconds() + 10.0)

        link = self.link(conversation)
        link.dataReceived(b"x" * (MAX_UNREAD + 1))
        work.callback(None)
        self.assertEqual(self.transport.producerState, "paused")

    def test_nothing_is_read_while_the_peer_takes_nothing(self) -> None:
        """Else a peer could make us write replies without end."""
        link = self.link(self.reads)
        link.pauseProducing()
        link.dataReceived(b"one")
        link.dataReceived(b"two")
        self.assertEqual(self.log, [])
        link.resumeProducing()
        self.assertEqual(self.log, ["onetwo"])

    def test_a_peer_that_takes_nothing_but_sends(self) -> None:
        """It has no more time than one that is silent."""
        link = self.link(self.reads)
        link.pauseProducing()
        for _ in range(9):
            link.dataReceived(b"x")
            self.clock.advance(1)
        self.assertNoResult(link.ended)
        self.clock.advance(1)
        self.assert_lost(link, ChannelTimeout)

    def test_drain(self) -> None:
        """Writing waits for the peer, and for a certain time."""

        async def conversation(channel: IChannel) -> None:
            for number in range(3):
                channel.write(b"%d" % number)
                end = channel.seconds() + 10.0
                while not await channel.drain(end):
                    self.log.append(channel.wire.take().decode())

        self.transport.is_full = True
        link = self.link(conversation)
        self.assertEqual(self.transport.value(), b"0")
        link.dataReceived(b"x")
        self.assertEqual(self.transport.value(), b"0")
        self.assertEqual(self.log, ["x"])
        link.resumeProducing()
        self.assertEqual(self.transport.value(), b"01")
        self.clock.advance(10)
        self.assert_lost(link, ChannelTimeout)

    def test_drain_of_a_connection_that_is_lost(self) -> None:
        """Nobody writes on for nothing."""
        work: Deferred[None] = Deferred()

        async def conversation(channel: IChannel) -> None:
            await work
            channel.write(b"x")
            await channel.drain(channel.seconds() + 10.0)

        link = self.link(conversation)
        self.lose(link)
        work.callback(None)
        self.assert_lost(link)

    def test_both_sides_write(self) -> None:
        """Who can't get rid of its replies takes nothing: they are read meanwhile."""

        async def conversation(channel: IChannel) -> None:
            channel.write(b"much")
            end = channel.seconds() + 10.0
            while not await channel.drain(end):
                channel.wire.take()

        self.transport.is_full = True
        link = self.link(conversation)
        for _ in range(9):
            link.dataReceived(b"x" * MAX_UNREAD + b"x")
            self.assertEqual(self.transport.producerState, "producing")
            self.clock.advance(1)
        link.resumeProducing()
        self.assertIsNone(self.successResultOf(link.ended))

    def test_a_peer_that_never_reads_is_not_waited_for(self) -> None:
        """Its time is over: the connection is gone at once."""
        for conversation in (self.reads, self.ends_well):
            self.transport = MemoryTransport(lenient=True)
            link = self.link(conversation)
            link.ended.addErrback(lambda failure: failure.trap(ChannelTimeout) and None)
            link.pauseProducing()
            self.clock.advance(9)
            self.assertFalse(self.transport.disconnecting)
            self.clock.advance(1)
            self.assertTrue(self.transport.disconnected)

    async def ends_well(self, channel: IChannel) -> None:
        """As a receiver does when time is over."""
        try:
            await channel.receive(channel.seconds() + 10.0)
        except ChannelTimeout:
            channel.write(b"421 closing\r\n")

    def test_drain_where_nothing_is_in_the_way(self) -> None:
        """Nothing waits."""

        async def conversation(channel: IChannel) -> None:
            channel.write(b"x")
            self.assertTrue(await channel.drain(channel.seconds() + 10.0))

        self.assertIsNone(self.successResultOf(self.link(conversation).ended))
