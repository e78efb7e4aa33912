"""The parts of the service: what repeats, what a reload closes."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.interfaces import IFirstRoles
from mta.metrics import NullMeter
from mta.resolver import Resolver
from mta.service.listeners import Receivers
from mta.service.repeating import Repeating
from mta.smtp.sasl import PLAIN
from mta.testing import FakeRouter, MemorySpool
from mta.users import DovecotUsers
from tests.conversations import reception
from tests.users.test_dovecot import FakeEndpoint, session


class RepeatingTests(SynchronousTestCase):
    """What is done every so many seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.done = 0

    def start(self, action: object = None) -> Repeating:
        """Something that is done every ten seconds."""
        repeating = Repeating(10, action or self.count, self.clock)  # type: ignore[arg-type]
        repeating.startService()
        return repeating

    async def count(self) -> None:
        """Do it."""
        self.done += 1

    async def fail(self) -> None:
        """Do it, and fail."""
        self.done += 1
        raise ZeroDivisionError

    def test_again_and_again(self) -> None:
        """Not at once, then every ten seconds, until it is stopped."""
        repeating = self.start()
        self.assertEqual(self.done, 0)
        self.clock.pump([10] * 3)
        self.assertEqual(self.done, 3)
        self.successResultOf(repeating.stopService())
        self.clock.pump([10] * 3)
        self.assertEqual(self.done, 3)

    def test_a_failure_is_not_the_end(self) -> None:
        """It is logged, with its name, and the next time comes."""
        self.start(self.fail)
        self.clock.pump([10] * 3)
        self.assertEqual(self.done, 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_the_end_waits(self) -> None:
        """Until what is under way is over."""
        under_way: Deferred[None] = Deferred()
        repeating = self.start(lambda: under_way)
        self.clock.advance(10)
        stopped = repeating.stopService()
        assert stopped is not None
        self.assertNoResult(stopped)
        under_way.callback(None)
        self.successResultOf(stopped)


class ReceiversTests(SynchronousTestCase):
    """The first roles of a listener."""

    def test_interface(self) -> None:
        """Each connection has a receiver of its own."""
        receivers = Receivers(reception(MemorySpool()), NullMeter())
        self.assertTrue(verifyObject(IFirstRoles, receivers))
        self.assertIsNot(receivers.first_role(), receivers.first_role())


class ClosingTests(SynchronousTestCase):
    """What the configuration made, and another has taken the place of."""

    def test_resolver(self) -> None:
        """There is nothing of it to close."""
        reactor = MemoryReactorClock()
        for servers in ([], [("192.0.2.53", 53)]):
            Resolver(reactor, servers)
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_dovecot(self) -> None:
        """Its connection ends when the exchanges under way are over, and a new one as well."""
        endpoint = FakeEndpoint()
        users = DovecotUsers(endpoint, Clock(), FakeRouter({}))

        async def challenge(text: bytes) -> bytes:
            return b""

        done = Deferred.fromCoroutine(
            users.authenticate(session(), PLAIN, b"\0alice\0wonderland", challenge)
        )
        [link] = endpoint.links
        users.close()
        self.assertFalse(link.transport.disconnecting)
        link.dataReceived(b"OK\t1\tuser=alice\n")
        self.assertEqual(self.successResultOf(done), "alice")
        self.assertTrue(link.transport.disconnecting)
        link.connectionLost()
        self.successResultOf(Deferred.fromCoroutine(users.mechanisms(session())))
        self.assertTrue(endpoint.links[-1].transport.disconnecting)
