"""Queue runs for ETRN, and the senders on turned connections."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.interfaces import (
    IHeldMail,
    IMailSource,
    IRole,
)
from mta.mail import Agent, Hop
from mta.peers.exchange import NoMail
from mta.peers.provider import MAX_LINKS, MAX_WANTED, Provider
from mta.peers.status_log import PeerStatusLog
from mta.peers.turned_sender import OVERTAKEN_TIMEOUT
from mta.queued import HopFailure
from mta.session import LinkKind
from mta.settings import HOUR, Peer
from mta.smtp import replies
from mta.smtp.errors import Refusal
from tests.sides import REFUSED, FakePeerMeter, FakeStatusLog, sides


class QueueRunTests(SynchronousTestCase):
    """ETRN: runs for a peer, one at a time."""

    def setUp(self) -> None:
        self.asked: list[set[str]] = []
        self.running: list[Deferred[None]] = []
        self.status = FakeStatusLog()
        self.provider = Provider(
            "provider.example",
            self,  # the relay
            cast(IHeldMail, self),
            cast(PeerStatusLog, self.status),
            FakePeerMeter(),
            Clock(),
        )
        self.peer = Peer("office", (".example",), etrn=Hop(Agent.SMTP, "10.1.2.3", 25))

    def open(
        self, peer: str, domains: object, linger: float, kind: LinkKind = LinkKind.MAIN
    ) -> Closeable:
        """Remember what was asked for."""
        self.asked.append(set(cast("list[str]", domains)))
        return Closeable()

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent`."""
        self.running.append(Deferred())
        await self.running[-1]

    def test_one_at_a_time(self) -> None:
        """What is asked for during a run comes next, all at once."""
        for domain in ("a.example", "b.example", "c.example", "b.example"):
            self.provider.start_run(self.peer, [domain])
        self.assertEqual(self.asked, [{"a.example"}])
        self.running[0].callback(None)
        self.assertEqual(self.asked[1:], [{"b.example", "c.example"}])
        self.running[1].callback(None)
        self.provider.start_run(self.peer, ["a.example"])
        self.assertEqual(len(self.asked), 3)

    def test_bounded(self) -> None:
        """A peer that names ever more domains during a run is told to wait."""
        for number in range(MAX_WANTED + 1):
            self.provider.start_run(self.peer, [f"{number}.example"])
        with self.assertRaises(Refusal) as caught:
            self.provider.start_run(self.peer, ["more.example"])
        self.assertEqual(caught.exception.reply, replies.ETRN_LATER)

    def test_failure(self) -> None:
        """It is noted, and the next run may begin."""
        self.provider.start_run(self.peer, ["a.example"])
        self.running[0].errback(HopFailure(REFUSED))
        self.assertEqual(self.status.notes["last_error"], str(REFUSED.reply))
        self.provider.start_run(self.peer, ["a.example"])
        self.assertEqual(len(self.running), 2)

    def test_a_bug(self) -> None:
        """It is logged, and the next run may begin."""
        self.provider.start_run(self.peer, ["a.example"])
        self.running[0].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.provider.start_run(self.peer, ["a.example"])
        self.assertEqual(len(self.running), 2)


class Closeable(NoMail):
    """A source that can be closed."""

    def close(self) -> None:
        """See `IHeldSource`."""


class TurnedSenderTests(SynchronousTestCase):
    """The role after a turn."""

    def test_interface(self) -> None:
        """It is a role."""
        provider, _ = sides()
        verifyObject(
            IRole, provider.provider.sender_for(provider.peer, ["office.example"], LinkKind.MAIN)
        )

    def test_bounded(self) -> None:
        """A peer that turns connections and leaves them be gets no more of them."""
        _, office = sides(linger=HOUR)
        exchanges = []
        for _ in range(MAX_LINKS):
            exchanges.append(office.exchange())
            office.dialler.carry()
            office.dialler.wires[-1].is_dead = True
        refused = office.exchange()
        office.dialler.carry()
        failure = self.failureResultOf(refused, HopFailure)
        self.assertEqual(failure.value.outcome.reply, replies.ATRN_REFUSED)
        office.clock.advance(OVERTAKEN_TIMEOUT)
        office.dialler.carry()
        exchanges.append(office.exchange())
        office.dialler.carry()
        for wire in office.dialler.wires:
            wire.cut()
        for exchange in exchanges:
            self.assertTrue(self.successResultOf(exchange).turned)
