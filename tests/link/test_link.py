"""The driver of a conversation: waiting, time, back pressure, ends."""

from __future__ import annotations

import socket as sockets
from collections.abc import Awaitable, Callable
from functools import partial
from socket import socket
from typing import cast

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IChannel, IRole
from mta.link import Link, LinkFactory
from mta.link.conversation import CLOSE_TIMEOUT, LATE_CLOSE_TIMEOUT
from mta.link.link import HANDSHAKE_TIMEOUT, MAX_UNREAD
from mta.link.output import MAX_UNSENT
from mta.session import ChannelLost, ChannelTimeout, HandshakeFailed
from mta.testing import FakeTLS, GreetingRole, MemoryTransport, OneRole
from mta.testing.connections import SECURED

Conversation = Callable[[IChannel], Awaitable[IRole | None]]


@implementer(IRole)
class Role:
    """A role that holds the conversation it is given."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole`."""
        return await self._conversation(channel)


class LinkTestCase(SynchronousTestCase):
    """A Link in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = MemoryTransport(lenient=True)
        self.tls = FakeTLS()
        self.log: list[str] = []

    def link(self, conversation: Conversation, *, tls_at_once: bool = False) -> Link:
        """A connected link with a role that holds that conversation."""
        link = Link(Role(conversation), self.clock, self.tls, tls_at_once=tls_at_once)
        link.makeConnection(self.transport)
        return link

    def lose(self, link: Link) -> None:
        """The connection ends cleanly."""
        link.connectionLost(Failure(ConnectionDone()))

    def assert_lost(self, link: Link, kind: type[ChannelLost] = ChannelLost) -> ChannelLost:
        """The conversation ended for want of a connection."""
        lost = self.failureResultOf(link.ended).value
        self.assertIs(type(lost), kind)
        assert isinstance(lost, ChannelLost)
        return lost

    async def reads(self, channel: IChannel) -> None:
        """A conversation that notes what arrives, until the connection ends."""
        while True:
            await channel.receive(channel.seconds() + 10.0)
            self.log.append(channel.wire.take().decode())


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
        self.transport = MemoryTransport(peerAddress=UNIXAddress("/x"))
        link = self.link(self.reads)
        self.assertEqual((link.remote_address, link.remote_port), ("unix", 0))


class WaitingTests(LinkTestCase):
    """What a conversation waits for."""

    def test_it_reads_what_arrives(self) -> None:
        """Each time that something does."""
        link = self.link(self.reads)
        self.assertEqual(self.log, [])
        link.dataReceived(b"one")
        link.dataReceived(b"two")
        self.assertEqual(self.log, ["one", "two"])

    def test_it_waits_for_a_deferred(self) -> None:
        """What arrives meanwhile is read later."""
        work: Deferred[str] = Deferred()

        async def conversation(channel: IChannel) -> None:
            await channel.receive(channel.seconds() + 10.0)
            self.log.append(await work)
            self.log.append(channel.wire.take().decode())

        link = self.link(conversation)
        link.dataReceived(b"one")
        link.dataReceived(b"two")
        self.assertEqual(self.log, [])
        work.callback("done")
        self.assertEqual(self.log, ["done", "onetwo"])
        self.assertIsNone(self.successResultOf(link.ended))

    def test_a_deferred_that_fails(self) -> None:
        """The conversation gets the exception, and may go on."""
        work: Deferred[None] = Deferred()

        async def conversation(channel: IChannel) -> None:
            try:
                await work
            except OSError as error:
                channel.write(str(error).encode())

        link = self.link(conversation)
        work.errback(OSError("disk"))
        self.assertEqual(self.transport.value(), b"disk")
        self.assertIsNone(self.successResultOf(link.ended))

    def test_a_deferred_that_is_there_already(self) -> None:
        """Nothing waits."""

        async def conversation(channel: IChannel) -> None:
            for number in range(5000):
                done: Deferred[int] = Deferred()
                done.callback(number)
                self.assertEqual(await done, number)

        self.assertIsNone(self.successResultOf(self.link(conversation).ended))

    def test_a_pause(self) -> None:
        """Input waits until it is over; the time-out of no wait runs."""

        async def conversation(channel: IChannel) -> None:
            await channel.sleep(100.0)
            self.log.append(channel.wire.take().decode())

        link = self.link(conversation)
        link.dataReceived(b"early")
        self.clock.advance(99)
        self.assertEqual(self.log, [])
        self.clock.advance(1)
        self.assertEqual(self.log, ["early"])
        self.assertIsNone(self.successResultOf(link.ended))

    def test_seconds(self) -> None:
        """The clock, for measuring."""
        link = self.link(self.reads)
        before = link.seconds()
        self.clock.advance(7)
        self.assertEqual(link.seconds() - before, 7)


class DozeTests(LinkTestCase):
    """Waiting for something else while the peer is silent."""

    def setUp(self) -> None:
        super().setUp()
        self.event: Deferred[bool] = Deferred()
        self.dozed: list[bool | None] = []

    async def wait_for_event(self) -> bool:
        """Something that happens elsewhere."""
        return await self.event

    async def dozes(self, channel: IChannel) -> None:
        """A conversation that dozes once."""
        self.dozed.append(await channel.wait_idle(self.wait_for_event(), 60.0))

    def test_the_event_comes(self) -> None:
        """Its result wakes."""
        link = self.link(self.dozes)
        self.event.callback(True)
        self.assertEqual(self.dozed, [True])
        self.assertIsNone(self.successResultOf(link.ended))

    def test_it_has_come_already(self) -> None:
        """Nothing waits."""
        self.event.callback(False)
        self.link(self.dozes)
        self.assertEqual(self.dozed, [False])

    def test_it_fails(self) -> None:
        """A fault in what is waited for is the conversation's, before and while it dozes."""
        link = self.link(self.dozes)
        self.event.errback(ZeroDivisionError())
        self.failureResultOf(link.ended, ZeroDivisionError)
        self.event, self.transport = fail(ZeroDivisionError()), MemoryTransport()
        link = self.link(self.dozes)
        self.failureResultOf(link.ended, ZeroDivisionError)

    def test_time_passes(self) -> None:
        """The event is cancelled."""
        self.link(self.dozes)
        self.clock.advance(59)
        self.assertEqual(self.dozed, [])
        self.clock.advance(1)
        self.assertEqual(self.dozed, [None])
        self.assertTrue(self.event.called)

    def test_the_peer_says_something(self) -> None:
        """Now, or before."""
        link = self.link(self.dozes)
        link.dataReceived(b"421 idle\r\n")
        self.assertEqual(self.dozed, [None])

        async def with_unread_input(channel: IChannel) -> None:
            await channel.receive(channel.seconds() + 10.0)
            await self.dozes(channel)

        self.event, self.transport = Deferred(), MemoryTransport()
        self.link(with_unread_input).dataReceived(b"x")
        self.assertEqual(self.dozed, [None, None])

    def test_the_connection_is_lost(self) -> None:
        """As in every other wait."""
        link = self.link(self.dozes)
        self.lose(link)
        self.assertEqual(self.dozed, [])
        self.assertTrue(self.event.called)
        self.assert_lost(link)

    def test_the_service_stops(self) -> None:
        """The conversation looks at `closing`."""
        link = self.link(self.dozes)
        link.close_gently()
        self.assertEqual(self.dozed, [None])

    def test_it_is_thrown_away(self) -> None:
        """A conversation that nobody holds any more ends without another step."""
        link = self.link(self.dozes)
        assert link._conversation._coroutine is not None
        link._conversation._coroutine.close()  # as the garbage collector does
        self.assertNoResult(link.ended)


class TimeTests(LinkTestCase):
    """Time-outs."""

    def test_time_out(self) -> None:
        """Nothing arrives for as long as the step allows."""
        link = self.link(self.reads)
        self.clock.advance(9.9)
        self.assertNoResult(link.ended)
        self.clock.advance(0.1)
        self.assertEqual(str(self.assert_lost(link, ChannelTimeout)), "timed out")
        self.assertTrue(self.transport.disconnecting)

    def test_each_wait_has_its_time(self) -> None:
        """What arrives begins the next one, and the timer is not touched for it."""
        link = self.link(self.reads)
        (timer,) = self.clock.getDelayedCalls()
        for _ in range(10):
            self.clock.advance(0.9)
            link.dataReceived(b"x")
            self.assertEqual(self.clock.getDelayedCalls(), [timer])
        self.clock.advance(9)
        self.assertNoResult(link.ended)
        self.clock.advance(1)
        self.assert_lost(link, ChannelTimeout)

    def test_a_shorter_wait_after_a_longer_one(self) -> None:
        """The timer is moved forward."""

        async def conversation(channel: IChannel) -> None:
            await channel.receive(channel.seconds() + 100.0)
            await channel.receive(channel.seconds() + 5.0)

        link = self.link(conversation)
        link.dataReceived(b"x")
        self.clock.advance(5)
        self.assert_lost(link, ChannelTimeout)

    def test_no_time_out_while_we_work(self) -> None:
        """A peer is not to blame for our disk."""
        work: Deferred[None] = Deferred()

        async def conversation(channel: IChannel) -> None:
            await channel.receive(channel.seconds() + 10.0)
            await work

        link = self.link(conversation)
        link.dataReceived(b"x")
        self.clock.advance(1000)
        self.assertNoResult(link.ended)
        work.callback(None)
        self.assertIsNone(self.successResultOf(link.ended))

    def test_last_words_after_a_time_out(self) -> None:
        """They are written before the connection closes."""

        async def conversation(channel: IChannel) -> None:
            try:
                await channel.receive(channel.seconds() + 10.0)
            except ChannelTimeout:
                channel.write(b"421 bye\r\n")

        link = self.link(conversation)
        self.clock.advance(10)
        self.assertEqual(self.transport.value(), b"421 bye\r\n")
        self.assertIsNone(self.successResultOf(link.ended))


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
        server = Connection(socket(), LinkFactory(self.clock))
        self.addCleanup(server.socket.close)
        server.getPeer = lambda: IPv4Address("TCP", "192.0.2.1", 1025)  # type: ignore[method-assign]
        Link(Role(self.reads), self.clock).makeConnection(server)
        self.assertTrue(server.getTcpNoDelay())


class Line(Connection):
    """A TCP connection whose system takes only so many octets at once."""

    def __init__(self) -> None:
        super().__init__(socket(), LinkFactory(Clock()), MemoryReactorClock())
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


class EndTests(LinkTestCase):
    """How a connection ends."""

    def test_the_conversation_is_over(self) -> None:
        """The connection closes after what was written."""

        async def conversation(channel: IChannel) -> None:
            channel.write(b"bye")

        link = self.link(conversation)
        self.assertIsNone(self.successResultOf(link.ended))
        self.assertEqual(self.transport.value(), b"bye")
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.transport.disconnected)
        self.assertIsNone(self.transport.producer)

    def test_a_peer_that_does_not_take_our_last_words(self) -> None:
        """It has half a minute, then the connection is cut."""

        async def conversation(channel: IChannel) -> None:
            channel.write(b"bye")

        self.link(conversation)
        self.clock.advance(CLOSE_TIMEOUT - 1)
        self.assertFalse(self.transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(self.transport.disconnected)

    def test_a_peer_that_takes_nothing_has_no_more_time(self) -> None:
        """It had all of it: the connection is cut a moment after the time-out."""
        link = self.link(self.reads)
        link.pauseProducing()
        self.clock.advance(10)
        self.assert_lost(link, ChannelTimeout)
        self.clock.advance(LATE_CLOSE_TIMEOUT)
        self.assertTrue(self.transport.disconnected)

    def test_a_peer_that_closes_in_time(self) -> None:
        """Nothing is left over, no timer either; what it sends until then is ignored."""

        async def conversation(channel: IChannel) -> None:
            pass

        link = self.link(conversation)
        link.dataReceived(b"more")
        link.readConnectionLost()
        self.lose(link)
        self.assertIsNone(self.successResultOf(link.ended))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_connection_is_lost(self) -> None:
        """The conversation ends quietly, with the reason; nothing is written any more."""

        async def conversation(channel: IChannel) -> None:
            try:
                await channel.receive(channel.seconds() + 10.0)
            finally:
                channel.write(b"bye")

        link = self.link(conversation)
        link.connectionLost(Failure(ConnectionLost("reset")))
        self.assertIn("reset", str(self.assert_lost(link)))
        self.assertEqual(self.transport.value(), b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_connection_is_lost_while_we_work(self) -> None:
        """The work is brought to its end; the next wait fails."""
        work: Deferred[None] = Deferred()

        async def conversation(channel: IChannel) -> None:
            await channel.receive(channel.seconds() + 10.0)
            await work
            self.log.append("committed")
            await channel.receive(channel.seconds() + 10.0)

        link = self.link(conversation)
        link.dataReceived(b"x")
        self.lose(link)
        self.assertNoResult(link.ended)
        work.callback(None)
        self.assertEqual(self.log, ["committed"])
        self.assert_lost(link)

    def test_the_peer_closes_its_half(self) -> None:
        """It may still read: what we have to say is said."""
        work: Deferred[None] = Deferred()

        async def conversation(channel: IChannel) -> None:
            await channel.receive(channel.seconds() + 10.0)
            await work
            channel.write(b"done")
            await channel.receive(channel.seconds() + 10.0)

        link = self.link(conversation)
        link.dataReceived(b"x")
        link.readConnectionLost()
        self.assertFalse(self.transport.disconnecting)
        work.callback(None)
        self.assertEqual(self.transport.value(), b"done")
        self.assertEqual(str(self.assert_lost(link)), "closed by the peer")
        self.assertTrue(self.transport.disconnecting)

    def test_the_first_reason_counts(self) -> None:
        """A half close is followed by the loss of the whole."""
        work: Deferred[None] = Deferred()

        async def conversation(channel: IChannel) -> None:
            await work
            await channel.receive(channel.seconds() + 10.0)

        link = self.link(conversation)
        link.readConnectionLost()
        self.lose(link)
        work.callback(None)
        self.assertEqual(str(self.assert_lost(link)), "closed by the peer")

    def test_a_bug_in_a_role(self) -> None:
        """The connection closes; whoever waits for `ended` gets the failure."""

        async def conversation(channel: IChannel) -> None:
            await channel.receive(channel.seconds() + 10.0)
            raise ZeroDivisionError

        link = self.link(conversation)
        link.dataReceived(b"x")
        self.failureResultOf(link.ended, ZeroDivisionError)
        self.assertTrue(self.transport.disconnecting)

    def test_a_bug_at_the_beginning(self) -> None:
        """The same."""

        async def conversation(channel: IChannel) -> None:
            raise ZeroDivisionError

        link = self.link(conversation)
        self.failureResultOf(link.ended, ZeroDivisionError)
        self.assertTrue(self.transport.disconnecting)

    def test_abort(self) -> None:
        """The connection ends now; twice does no harm, nor does it later."""
        link = self.link(self.reads)
        link.abort()
        self.assertTrue(self.transport.disconnected)
        self.lose(link)
        self.assert_lost(link)
        link.abort()

    def test_whoever_waits_gives_up(self) -> None:
        """Cancelling `ended` aborts the connection."""
        link = self.link(self.reads)
        link.ended.cancel()
        self.assertTrue(self.transport.disconnected)
        self.lose(link)
        self.failureResultOf(link.ended, CancelledError)

    def test_closing_gently(self) -> None:
        """The conversation hears of it at once, and ends when it sees fit."""

        async def conversation(channel: IChannel) -> None:
            while not channel.closing:
                await channel.receive(channel.seconds() + 10.0)
            channel.write(b"421")
            await channel.receive(channel.seconds() + 10.0)

        link = self.link(conversation)
        link.close_gently()
        self.assertEqual(self.transport.value(), b"421")
        self.assertNoResult(link.ended)
        link.dataReceived(b"QUIT")
        self.assertIsNone(self.successResultOf(link.ended))


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


class FactoryTests(LinkTestCase):
    """What a listener makes of connections."""

    def connect(self, factory: LinkFactory) -> Link:
        """One more connection."""
        link = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1025))
        link.makeConnection(MemoryTransport())
        return link

    def test_it_knows_the_links_that_stand(self) -> None:
        """From the connection to the end of the conversation."""
        factory = LinkFactory(self.clock)
        factory.serve(OneRole(Role(self.reads)))
        links = {self.connect(factory) for _ in range(3)}
        self.assertEqual(factory.links, links)
        for link in links:
            self.assertEqual(link.remote_address, "192.0.2.1")
            self.lose(link)
        self.assertEqual(factory.links, set())

    def test_a_new_configuration(self) -> None:
        """Connections that stand keep what they have."""
        factory = LinkFactory(self.clock)
        factory.serve(OneRole(Role(self.reads)))
        old = self.connect(factory)
        factory.serve(OneRole(GreetingRole()))
        new = self.connect(factory)
        self.assertEqual(factory.links, {old})
        self.assertIsNone(self.successResultOf(new.ended))

    def test_bugs_are_told(self) -> None:
        """With the peer's address; a lost connection is none."""

        async def conversation(channel: IChannel) -> None:
            await channel.receive(channel.seconds() + 10.0)
            raise ZeroDivisionError

        factory = LinkFactory(self.clock)
        factory.serve(OneRole(Role(conversation)))
        self.lose(self.connect(factory))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.connect(factory).dataReceived(b"x")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(factory.links, set())

    def test_a_session_that_is_cut_is_no_bug(self) -> None:
        """Who waits for its end gives up when the service stops: one line, no traceback."""
        factory = LinkFactory(self.clock)
        factory.serve(OneRole(Role(self.reads)))
        link = self.connect(factory)
        with capturedLogs() as events:
            link.ended.cancel()
        (event,) = (event for event in events if "peer" in event)
        self.assertEqual((event["log_level"], event["peer"]), (LogLevel.info, "192.0.2.1"))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertTrue(cast("MemoryTransport", link.transport).disconnected)


class LossTests(TestCase):
    """A peer that acknowledges nothing any more, on real sockets."""

    async def connected(self, link: Link) -> None:
        """Connect a link to a server that says nothing."""
        from twisted.internet import reactor

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(Protocol)
        )
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await connectProtocol(endpoint, link)

    async def test_the_system_is_told(self) -> None:
        """It probes often enough, and gives up what is not acknowledged, in that time."""
        from twisted.internet import reactor

        async def wait(channel: IChannel) -> None:
            await channel.receive(channel.seconds() + 60)

        link = Link(Role(wait), reactor)
        link.notice_loss(60.0)  # nothing, before there is a connection
        await self.connected(link)
        link.notice_loss(120.0)
        option = link.transport.socket.getsockopt
        self.assertEqual(option(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE), 1)
        tcp = partial(option, sockets.IPPROTO_TCP)
        probes = tcp(sockets.TCP_KEEPIDLE) + tcp(sockets.TCP_KEEPCNT) * tcp(sockets.TCP_KEEPINTVL)
        self.assertLessEqual(probes, 120)
        self.assertEqual(tcp(sockets.TCP_USER_TIMEOUT), 120_000)
        link.abort()
        await link.ended.addErrback(lambda failure: failure.trap(ChannelLost))
