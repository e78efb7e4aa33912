"""Pauses that end at once when the runner stops."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mta.queue.pauses import Pauses


class PauseTests(SynchronousTestCase):
    """Several at one time, as while a spool is out of order."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pauses = Pauses(self.clock)
        self.waits = [self.wait() for _ in range(3)]

    def wait(self) -> Deferred[None]:
        """A pause of ten seconds."""
        return Deferred.fromCoroutine(self.pauses.wait(10))

    def test_time_passes(self) -> None:
        """Each ends in its time."""
        self.clock.advance(9)
        for each in self.waits:
            self.assertNoResult(each)
        self.clock.advance(1)
        for each in self.waits:
            self.successResultOf(each)

    def test_stop(self) -> None:
        """All end at once, and leave no timer; there are no more."""
        self.pauses.stop()
        for each in (*self.waits, self.wait()):
            self.successResultOf(each)
        self.assertEqual([], self.clock.getDelayedCalls())
