"""Which messages are noted as being tried."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Hop, Status
from mta.queue.noted import NotedSource, noted
from mta.queue.outcomes import STOOD_STILL
from mta.queued import Delivery
from mta.testing import FakeMailSource, delivery


class Attempts:
    """Remembers what is tried; says no to what is in `lost`."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.lost: set[str] = set()

    def begin_attempt(self, id: str) -> bool:
        """See `IAttempts.begin_attempt`."""
        if id not in self.lost:
            self.tried.append(id)
        return id not in self.lost

    def end_attempt(self, id: str) -> None:
        """See `IAttempts.end_attempt`."""
        self.tried.remove(id)


class NotedTests(SynchronousTestCase):
    """A message is noted from when it is handed out until it comes back."""

    def setUp(self) -> None:
        hop = Hop(Agent.SMTP, "smtp://relay.example")
        self.mail = FakeMailSource(delivery(hop, "A1"), delivery(hop, "A2"), delivery(hop, "A3"))
        self.attempts = Attempts()
        self.source = NotedSource(self.mail, self.attempts)

    def next(self) -> Delivery:
        """The next delivery."""
        found = self.successResultOf(self.source.next())
        assert found is not None
        return found

    def test_handed_out(self) -> None:
        """It is, and each is over once."""
        first, second = self.next(), self.next()
        self.assertEqual(self.attempts.tried, ["A1", "A2"])
        self.source.report(first, [STOOD_STILL])
        self.assertEqual(self.attempts.tried, ["A2"])
        self.source.close()
        self.source.close()
        self.assertEqual(self.attempts.tried, [])
        self.assertEqual(second.message.id, "A2")

    def test_who_may_have_lost_it_does_not_try(self) -> None:
        """It is put off for a moment, and the next one is tried."""
        self.attempts.lost = {"A1", "A2"}
        self.assertEqual(self.next().message.id, "A3")
        for name in ("A1", "A2"):
            (outcome,) = self.mail.outcomes[name]
            self.assertEqual(outcome.status, Status.DEFERRED)
            self.assertGreater(outcome.wait, 0)

    def test_worked_on(self) -> None:
        """So is what is read or written about, also where that fails."""
        try:
            with noted(self.attempts, ["A1"]):
                self.assertEqual(self.attempts.tried, ["A1"])
                raise ZeroDivisionError
        except ZeroDivisionError:
            self.assertEqual(self.attempts.tried, [])
