"""The timer of a connection."""

from __future__ import annotations

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mta.link.deadline import Deadline


class DeadlineTests(SynchronousTestCase):
    """See the module."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.passed: list[float] = []
        self.deadline = Deadline(self.clock, lambda: self.passed.append(self.clock.seconds()))

    def test_later(self) -> None:
        """The timer stays, and is set again when it fires."""
        self.deadline.set(10)
        self.deadline.set(15)
        self.assertEqual([call.getTime() for call in self.clock.getDelayedCalls()], [10])
        self.clock.pump([10, 5])
        self.assertEqual(self.passed, [15])

    def test_sooner(self) -> None:
        """Another timer takes its place: to move one costs the more, the more there are."""
        self.patch(DelayedCall, "reset", lambda *_: self.fail("moved"))
        self.deadline.set(10)
        self.deadline.set(5)
        self.assertEqual([call.getTime() for call in self.clock.getDelayedCalls()], [5])
        self.clock.pump([5, 5])
        self.assertEqual(self.passed, [5])

    def test_clear(self) -> None:
        """Nothing happens then."""
        self.deadline.set(10)
        self.deadline.clear()
        self.clock.advance(10)
        self.assertEqual(self.passed, [])
