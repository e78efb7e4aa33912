"""Which hosts take a domain's mail, and a next host that does not exist."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mta.delivery.dialler import Dialler, Transfer
from mta.delivery.exchangers import MAX_EXCHANGERS, exchangers
from mta.mail import Agent, Hop, Outcome, Status
from mta.queued import HopFailure
from mta.testing import FakeMailSource, FakeResolver, FakeTLS


class ExchangerTests(SynchronousTestCase):
    """RFC 5321 section 5.1: which hosts to try, in which order."""

    def ask(self, *records: tuple[int, str], seed: int = 0) -> Any:
        """The Deferred of the exchangers for these records."""
        shuffle = Random(seed).shuffle
        resolver = FakeResolver({"example.com": records}, {})
        return Deferred.fromCoroutine(exchangers(resolver, "example.com", shuffle))

    def hosts(self, *records: tuple[int, str], seed: int = 0) -> list[list[str]]:
        """The exchangers."""
        hosts: list[list[str]] = self.successResultOf(self.ask(*records, seed=seed))
        return hosts

    def test_order(self) -> None:
        """The lowest preference comes first."""
        self.assertEqual(self.hosts((20, "b"), (10, "a"), (30, "c")), [["a"], ["b"], ["c"]])

    def test_equals(self) -> None:
        """Among equals, each is first at times."""
        records = (10, "a"), (10, "b"), (5, "x")
        orders = {str(self.hosts(*records, seed=seed)) for seed in range(20)}
        self.assertEqual(orders, {"[['x'], ['a', 'b']]", "[['x'], ['b', 'a']]"})

    def test_twice(self) -> None:
        """A host that is named twice is tried once, at the better of its places."""
        self.assertEqual(self.hosts((20, "a"), (10, "b"), (10, "a"))[1:], [])

    def test_no_records(self) -> None:
        """A domain without MX records is its own exchanger."""
        self.assertEqual(self.hosts(), [["example.com"]])

    def test_null_mx(self) -> None:
        """A domain can say that it takes no mail (RFC 7505)."""
        failure = self.failureResultOf(self.ask((0, "")), HopFailure)
        self.assertEqual(str(failure.value.outcome.reply)[:10], "556 5.1.10")

    def test_null_among_others(self) -> None:
        """Where it names hosts as well, these count."""
        self.assertEqual(self.hosts((0, ""), (10, "a")), [["a"]])

    def test_too_many(self) -> None:
        """The worst of very many are left out."""
        records = [(number, f"{number}.example.com") for number in range(100)]
        self.assertEqual(len(self.hosts(*records)), MAX_EXCHANGERS)


class DiallerTests(SynchronousTestCase):
    """A next host whose name does not exist."""

    def failure_of(self, hop: Hop) -> Outcome:
        """What it means for the mail."""
        resolver = FakeResolver({}, {})
        dialler = Dialler(Clock(), None, "us.example", resolver, FakeTLS())
        conversation = Deferred.fromCoroutine(dialler.converse(hop, Transfer(FakeMailSource())))
        failure = self.failureResultOf(conversation, HopFailure)
        outcome: Outcome = failure.value.outcome
        return outcome

    def test_recipients(self) -> None:
        """A recipient's domain that is not there is not there."""
        outcome = self.failure_of(Hop(Agent.MX, "gone.example"))
        self.assertEqual(str(outcome.reply), "550 5.1.2 Domain not found: gone.example")

    def test_ours(self) -> None:
        """A host that we named ourselves waits for us to correct it, and we are told."""
        for agent in (Agent.SMTP, Agent.LMTP):
            with capturedLogs() as logs:
                outcome = self.failure_of(Hop(agent, "gone.example", 25))
            self.assertEqual(outcome.status, Status.DEFERRED)
            self.assertEqual(outcome.reply.enhanced, "4.3.5")
            self.assertEqual([LogLevel.error], [each["log_level"] for each in logs])
