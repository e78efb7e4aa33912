"""Hosts that say nothing, while other mail waits for a connection."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.delivery.dialler import CONNECT_TIMEOUT, HURRIED_CONNECT_TIMEOUT
from mta.delivery.silence import MAX_SILENCE
from mta.mail import Agent, Hop, Security, Status
from mta.settings import Queue
from mta.testing import FakeResolver
from tests.next_hops import DOMAIN, Connection, NextHops

OTHER = Hop(Agent.MX, "other.example", security=Security.OFF)
OPENING = ("220 x", "250 x")
TAKEN = ("250 mail", "250 rcpt", "354 go", "250 taken")


class AttendedTests(SynchronousTestCase):
    """A silent host, and a person who waits at a terminal."""

    def dialled(self, hop: Hop) -> Connection:
        """A connection to the one host of a hop, which is made."""
        names = FakeResolver({}, {"mx": ["192.0.2.1"]})
        self.hops = NextHops(names, hop=hop, attended=True)
        self.addCleanup(self.hops.stop)
        self.hops.send("M1")
        self.hops.dispatch()
        connection = self.hops.next_connection()
        assert connection is not None
        connection.accept()
        return connection

    def test_no_greeting(self) -> None:
        """It has twenty seconds, and not five minutes."""
        silent = self.dialled(Hop(Agent.SMTP, "mx", 25, security=Security.OFF))
        self.hops.reactor.pump([1] * 19)
        self.assertFalse(silent.transport.disconnecting)
        self.hops.reactor.advance(1)
        self.assertTrue(silent.transport.disconnecting)

    def test_no_tls(self) -> None:
        """So has one that is to begin with TLS."""
        silent = self.dialled(Hop(Agent.SMTP, "mx", 465, implicit_tls=True))
        self.hops.reactor.pump([1] * 19)
        self.assertFalse(silent.transport.disconnecting)
        self.hops.reactor.advance(1)
        self.assertTrue(silent.transport.disconnecting)


class SilenceLimitTests(SynchronousTestCase):
    """One place for two hops; the first one's hosts accept the connection and say nothing."""

    def setUp(self) -> None:
        names = FakeResolver(
            {DOMAIN: [(10, "mx1"), (20, "mx2")], "other.example": []},
            {"mx1": ["192.0.2.1"], "mx2": ["192.0.2.2"], "other.example": ["192.0.2.9"]},
        )
        self.hops = NextHops(names, queue=Queue(concurrency=1))
        self.addCleanup(self.hops.stop)
        self.hops.send("M1")
        self.hops.dispatch()

    def connection(self, address: str) -> Connection:
        """The next connection, which is made."""
        connection = self.hops.next_connection()
        assert connection is not None and connection.address == address, connection
        connection.accept()
        return connection

    def say(self, connection: Connection, *replies: str) -> None:
        """The host replies to one command after the other."""
        for reply in replies:
            connection.say(reply.encode() + b"\r\n")

    def send_other(self) -> None:
        """Mail for the other hop comes."""
        self.hops.send("M2", hop=OTHER)
        self.hops.dispatch()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, second by second."""
        for _ in range(int(seconds)):
            self.hops.reactor.advance(1)

    def test_while_nobody_waits(self) -> None:
        """A host has the five minutes of RFC 5321 for its greeting."""
        first = self.connection("192.0.2.1")
        self.pass_time(299)
        self.assertFalse(first.transport.disconnecting)

    def test_while_others_wait(self) -> None:
        """It has half a minute, and so has the next one; then the others have their turn."""
        first = self.connection("192.0.2.1")
        self.pass_time(100)
        self.send_other()
        self.pass_time(5)
        self.assertTrue(first.transport.disconnecting)
        first.reset()
        second = self.connection("192.0.2.2")
        second.say(b"220 x\r\n")
        self.pass_time(MAX_SILENCE + 5)
        self.assertTrue(second.transport.disconnecting)
        second.reset()
        self.say(self.connection("192.0.2.9"), *OPENING, *TAKEN)
        self.assertEqual(self.hops.outcomes["M1"][0].status, Status.DEFERRED)
        self.assertEqual(self.hops.outcomes["M2"][0].status, Status.RELAYED)

    def test_a_host_that_works(self) -> None:
        """Once mail goes, it has all the time that it needs."""
        first = self.connection("192.0.2.1")
        self.say(first, *OPENING)
        self.send_other()
        self.pass_time(200)
        self.say(first, *TAKEN)
        self.assertEqual(self.hops.outcomes["M1"][0].status, Status.RELAYED)

    def test_connecting(self) -> None:
        """It takes less time, too."""
        self.send_other()
        first = self.connection("192.0.2.1")
        first.say(b"421 no\r\n")
        timeouts = [timeout for _, _, _, timeout, _ in self.hops.reactor.tcpClients]
        self.assertEqual(timeouts, [CONNECT_TIMEOUT, HURRIED_CONNECT_TIMEOUT])
