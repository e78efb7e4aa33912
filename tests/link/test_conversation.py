"""The driver of a conversation: waiting, idling, time."""

from __future__ import annotations

import contextlib

from twisted.internet.defer import Deferred, fail

from mta.interfaces import IChannel
from mta.session import ChannelLost, ChannelTimeout
from mta.testing import MemoryTransport
from tests.link.cases import LinkTestCase


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

    def test_a_pause_ends_with_the_connection(self) -> None:
        """What the conversation holds is free at once, and not at the end of the pause."""

        async def conversation(channel: IChannel) -> None:
            await channel.sleep(100.0)
            raise AssertionError("it goes on")

        link = self.link(conversation)
        self.lose(link)
        self.failureResultOf(link.ended, ChannelLost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_pause_without_a_connection(self) -> None:
        """What was asked for on a connection that is gone is not worked off."""

        async def conversation(channel: IChannel) -> None:
            with contextlib.suppress(ChannelLost):
                await channel.receive(channel.seconds() + 10.0)
            await channel.sleep(0.0)

        link = self.link(conversation)
        self.lose(link)
        self.failureResultOf(link.ended, ChannelLost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

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
