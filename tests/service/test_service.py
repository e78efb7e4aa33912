"""The small services that the whole one is made of, and what a reload closes."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from mta.interfaces import IFirstRoles, IStatusSource
from mta.mail import Agent, Hop
from mta.metrics import NullMeter
from mta.resolver import Resolver
from mta.service.configured import Configured
from mta.service.listeners import Listeners, Receivers
from mta.service.main import MailService
from mta.service.monitoring import Status
from mta.service.peers import MAX_SURE, PeersService
from mta.service.periodic import Periodic
from mta.service.process import STOP_TIMEOUT, IConfigurable, Process
from mta.service.signals import StopSignals
from mta.service.workers import Workers
from mta.settings import ListenerTLS, Peer, Settings
from mta.smtp.sasl import PLAIN
from mta.spool.process_spool import ProcessSpool
from mta.testing import FakeRouter, MemorySpool
from mta.users.dovecot import DovecotUsers
from tests.conversations import receiver_config
from tests.users.test_dovecot import FakeEndpoint, session


class PeriodicTests(SynchronousTestCase):
    """Tasks that are done every so many seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.done = 0

    def start(self, action: Callable[[], Awaitable[None]] | None = None) -> Periodic:
        """Something that is done every ten seconds."""
        periodic = Periodic(10, action or self.count, self.clock)
        periodic.startService()
        return periodic

    async def count(self) -> None:
        """Do it."""
        self.done += 1

    async def fail_each_time(self) -> None:
        """Do it, and fail."""
        self.done += 1
        raise ZeroDivisionError

    def test_again_and_again(self) -> None:
        """At once, then every ten seconds, until it is stopped."""
        periodic = self.start()
        self.assertEqual(self.done, 1)
        self.clock.pump([10] * 3)
        self.assertEqual(self.done, 4)
        self.successResultOf(periodic.stopService())
        self.clock.pump([10] * 3)
        self.assertEqual(self.done, 4)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_failure_is_not_the_end(self) -> None:
        """It is logged, with its name, and the next time comes."""
        self.start(self.fail_each_time)
        self.clock.pump([10] * 3)
        self.assertEqual(self.done, 4)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)

    def test_the_end_waits(self) -> None:
        """Until the run under way is over."""
        under_way: Deferred[None] = Deferred()
        stopped = self.start(lambda: under_way).stopService()
        self.assertNoResult(stopped)
        under_way.callback(None)
        self.successResultOf(stopped)


PEER = Peer("office", connect=Hop(Agent.SMTP, "p.example"))


class FakeConfigured:
    """A configuration with one peer to dial."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(peers={"office": PEER})
        self.customer = self
        self.dialled: list[tuple[Peer, Collection[str] | None]] = []
        self.allowed: list[Collection[str]] = []
        self.closed: list[float] = []

    def keep_up(self, peers: Iterable[Peer], ours: Collection[str] | None) -> None:
        """Dial them."""
        self.dialled += [(peer, ours) for peer in peers]

    def allow(self, ours: Collection[str]) -> None:
        """Dial these alone."""
        self.allowed.append(ours)

    async def close(self, timeout: float) -> None:
        """Close it."""
        self.closed.append(timeout)


class FakeShared:
    """A spool that other nodes share."""

    def __init__(self) -> None:
        self.ours: list[str] = []
        self.asked: list[Collection[str]] = []
        self.failure: OSError | None = None

    async def peers_to_dial(self, peers: Collection[str]) -> Collection[str]:
        """See `ProcessSpool.peers_to_dial`."""
        self.asked.append(peers)
        if self.failure is not None:
            raise self.failure
        return self.ours


class PeersTests(SynchronousTestCase):
    """The peers that a process dials."""

    def service(self, *, is_first: bool = True, shared: object = None) -> PeersService:
        """The service, with a clock that the test moves."""
        self.clock = Clock()
        return PeersService(self.clock, is_first=is_first, shared=cast(ProcessSpool, shared))

    def use(self, peers: PeersService) -> FakeConfigured:
        """Another configuration."""
        configured = FakeConfigured()
        peers.use(cast(Configured, configured))
        return configured

    def test_from_the_beginning(self) -> None:
        """Not before the runner runs; a reload later dials those of the new one."""
        peers = self.service()
        first = self.use(peers)
        self.assertEqual(first.dialled, [])
        peers.begin()
        self.assertEqual(first.dialled, [(PEER, None)])
        self.assertEqual(self.use(peers).dialled, [(PEER, None)])
        self.successResultOf(Deferred.fromCoroutine(peers.look()))
        self.assertEqual(first.allowed, [])

    def test_workers_dial_none(self) -> None:
        """The first process does, for all."""
        peers = self.service(is_first=False)
        peers.use(cast(Configured, configured := FakeConfigured()))
        peers.begin()
        self.assertEqual(configured.dialled, [])

    def look(self, peers: PeersService) -> str:
        """Look who dials; returns what is logged."""
        with capturedLogs() as events:
            self.successResultOf(Deferred.fromCoroutine(peers.look()))
        return "\n".join(str(formatEvent(event)) for event in events)

    def test_shared(self) -> None:
        """None before it is known whose they are; ours for half a minute without the database."""
        shared = FakeShared()
        peers = self.service(shared=shared)
        configured = self.use(peers)
        peers.begin()
        self.assertEqual(configured.dialled, [(PEER, ())])
        self.assertEqual(self.look(peers), "")
        shared.ours = ["office"]
        self.assertEqual(self.look(peers), "office is dialled by this node")
        self.assertEqual(self.use(peers).dialled, [(PEER, ["office"])])
        shared.failure = OSError("away")
        last = self.use(peers)
        self.clock.advance(MAX_SURE - 1)
        self.look(peers)
        self.assertEqual(last.allowed, [])
        self.clock.advance(1)
        self.assertIn("away", self.look(peers))
        self.assertEqual(last.allowed, [()])
        shared.failure, shared.ours = None, []
        self.look(peers)
        self.assertEqual(shared.asked[-1], {"office"})

    def test_the_end(self) -> None:
        """The configuration in force is closed."""
        peers = self.service()
        old, new = self.use(peers), self.use(peers)
        self.successResultOf(peers.stopService())
        self.assertEqual((old.closed, new.closed), ([], [STOP_TIMEOUT]))


class ConfigurableTests(SynchronousTestCase):
    """The parts that a reload gives another configuration."""

    def test_interface(self) -> None:
        """All of them take one."""
        for part in (Process, Listeners, PeersService, Workers):
            self.assertTrue(verifyClass(IConfigurable, part))


class StatusTests(SynchronousTestCase):
    """The state of the process, for monitoring."""

    def test_interface(self) -> None:
        """It is what metrics ask for."""
        self.assertTrue(verifyObject(IStatusSource, Status()))

    def test_health(self) -> None:
        """Mail is not taken before the start is over; then the spool knows."""
        status = Status()
        self.assertEqual(self.successResultOf(status.health()), "starting or stopping")
        status.process = cast(Process, SimpleNamespace(spool=SimpleNamespace(failure="no disk")))
        status.is_ready = True
        self.assertEqual(self.successResultOf(status.health()), "no disk")


class StopTests(SynchronousTestCase):
    """The end of the whole service."""

    def test_fault(self) -> None:
        """A stop that fails is told, and no connection is cut in the call that ends it.

        Twisted cuts all of them as soon as the service has stopped, in the same call; in that of a
        connection with TLS it would fail.
        """
        reactor = MemoryReactorClock()
        service = MailService(Path("mta.yaml"), Settings("h.example"), reactor, {})
        service._process = FailingProcess()  # type: ignore[assignment]
        stopped = service.stopService()
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertNoResult(stopped)
        reactor.advance(0)
        self.successResultOf(stopped)


class FailingProcess:
    """A process whose runner or spool can't be stopped."""

    async def stop(self, timeout: float) -> None:
        """Fail."""
        raise ZeroDivisionError


class StopSignalTests(SynchronousTestCase):
    """Signals to stop."""

    def test_the_first_counts(self) -> None:
        """Twisted hears of one, and of none where we stop already."""
        heard: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, lambda number, frame: heard.append(number))
        signals = StopSignals()
        signals.watch()
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        self.assertEqual(heard, [signal.SIGTERM])
        self.assertTrue(signals.has_come)


class ReceiversTests(SynchronousTestCase):
    """The first roles of a listener."""

    def test_interface(self) -> None:
        """Each connection has a receiver of its own."""
        receivers = Receivers(receiver_config(MemorySpool()), NullMeter())
        self.assertTrue(verifyObject(IFirstRoles, receivers))
        self.assertIsNot(receivers.first_role("192.0.2.1"), receivers.first_role("192.0.2.1"))

    def test_refusal(self) -> None:
        """Nothing is said before a TLS handshake."""
        config = receiver_config(MemorySpool())
        for tls, reply in ((ListenerTLS.OPPORTUNISTIC, b"421"), (ListenerTLS.IMPLICIT, b"")):
            receivers = Receivers(replace(config, tls=tls), NullMeter())
            self.assertEqual(receivers.refusal[:3], reply)


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
        link.connectionLost(Failure(connectionDone.value))
        self.successResultOf(Deferred.fromCoroutine(users.mechanisms(session())))
        self.assertTrue(endpoint.links[-1].transport.disconnecting)
