"""Sessions that send no mail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mta.delivery.dialler import Dialler, HostAddress, Transfer
from mta.doctor.examined import SessionSeen
from mta.doctor.name_servers import NameServers
from mta.doctor.probe import PROBE_TIMEOUT, Probe
from mta.doctor.web import Web
from mta.link import Link
from mta.mail import Agent, Hop, Outcome, Security
from mta.queued import HopFailure
from mta.smtp.opening import SenderConfig
from mta.testing import FakeTLS, MemoryTransport

HOP = Hop(Agent.SMTP, "relay.example", 25)


class FakeDialler:
    """Has one host, whose end of the connection the test plays."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    async def addresses(self, hop: Hop, failures: list[Outcome]) -> AsyncIterator[HostAddress]:
        """One."""
        yield HostAddress(hop.next_hop, "192.0.2.1")

    async def talk(self, hop: Hop, candidate: HostAddress, transfer: Transfer) -> None:
        """Let the role talk over memory."""
        role = transfer.new_sender(SenderConfig("here.example", security=Security.OFF))
        self.link = Link(role, self.clock, FakeTLS())
        self.transport = MemoryTransport(lenient=True)
        self.link.makeConnection(self.transport)
        await self.link.ended


class ProbeTests(SynchronousTestCase):
    """The client's side."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.dialler = FakeDialler(self.clock)
        self.probe = Probe(
            cast(Dialler, self.dialler), self.clock, cast(NameServers, None), cast(Web, None)
        )

    def session(self, *commands: str, needed: str = "") -> Deferred[SessionSeen]:
        """A session that has begun."""
        return Deferred.fromCoroutine(self.probe.session(HOP, commands, needed))

    def say(self, *replies: str, expected: str) -> None:
        """Reply to what came last, which begins so."""
        said = self.dialler.transport.taken().decode()
        self.assertTrue(said.startswith(expected), said)
        self.dialler.link.dataReceived("".join(f"{each}\r\n" for each in replies).encode())

    def greet(self) -> None:
        """Let the session come to NOOP."""
        self.say("220 relay.example", expected="")
        self.say("250-relay.example", "250-ATRN", "250 XDOCTOR", expected="EHLO here.example")
        self.clock.advance(0.5)
        self.say("250 OK", expected="NOOP")

    def test_a_session(self) -> None:
        """Its keywords, its round trip, the replies to commands; it ends by QUIT."""
        talking = self.session("MAIL FROM:<>", "RSET")
        self.greet()
        self.say("550 no", expected="MAIL FROM:<>")
        self.say("250 OK", expected="RSET")
        self.say("221 bye", expected="QUIT")
        self.dialler.link.connectionLost(Failure(ConnectionDone()))
        seen = self.successResultOf(talking)
        self.assertEqual(seen.host, "relay.example")
        self.assertEqual(seen.keywords, {"ATRN", "XDOCTOR"})
        self.assertEqual(seen.round_trip, 0.5)
        self.assertEqual([reply.code for reply in seen.replies], [550, 250])

    def test_a_keyword_that_is_missing(self) -> None:
        """No command is sent."""
        talking = self.session("XOTHER ASK", needed="XOTHER")
        self.greet()
        self.say("221 bye", expected="QUIT")
        self.dialler.link.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.successResultOf(talking).replies, [])

    def test_silence(self) -> None:
        """What came in time counts, and a server that says nothing is none."""
        talking = self.session("MAIL FROM:<>", "RSET")
        self.clock.advance(PROBE_TIMEOUT)
        failure = self.failureResultOf(talking, HopFailure)
        self.assertIn("no answer within", failure.value.outcome.reply.text)
        talking = self.session("MAIL FROM:<>", "RSET")
        self.greet()
        self.say("250 OK", expected="MAIL FROM:<>")
        self.clock.advance(PROBE_TIMEOUT)
        self.assertEqual(len(self.successResultOf(talking).replies), 1)
