"""The ends of a connection: by the role, the peer, the service, or lost."""

from __future__ import annotations

import socket as sockets
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from mta.interfaces import IChannel
from mta.link import Link
from mta.link.conversation import CLOSE_TIMEOUT, LATE_CLOSE_TIMEOUT
from mta.session import ChannelLost, ChannelTimeout
from tests.link.cases import LinkTestCase, Role


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

    def test_lost_before_tls(self) -> None:
        """A peer that hangs up then has another port for TLS, or has banned this host."""
        link = self.link(self.reads, tls_at_once=True)
        link.connectionLost(Failure(ConnectionLost()))
        self.assertIn("hung up before TLS began: a wrong port", str(self.assert_lost(link)))

    def test_the_connection_is_lost(self) -> None:
        """The conversation ends quietly, with the reason; nothing is written any more."""

        async def conversation(channel: IChannel) -> None:
            try:
                await channel.receive(channel.seconds() + 10.0)
            finally:
                channel.write(b"bye")

        link = self.link(conversation)
        link.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(str(self.assert_lost(link)), "it broke off the connection")
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
