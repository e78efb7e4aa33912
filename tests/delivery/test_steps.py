"""Long work in steps."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.delivery.steps import TIME_SLICE, Steps
from mta.link import RoundRobin
from tests.link.test_round_robin import Reactor


class InTurnTests(SynchronousTestCase):
    """Steps of several works in one order."""

    def setUp(self) -> None:
        self.clock = Reactor()
        self.in_steps = Steps(self.clock, RoundRobin(self.clock))
        self.done: list[str] = []

    def work(self, name: str, took: float) -> Deferred[None]:
        """Begin work of three steps that take so many seconds each."""
        return Deferred.fromCoroutine(self.in_steps(self.steps(name, took)))

    def steps(self, name: str, took: float) -> Iterator[None]:
        for number in range(3):
            self.done.append(f"{name}{number}")
            self.clock.rightNow += took
            yield

    def test_one_at_a_time(self) -> None:
        """Each iteration of the reactor has one step, of one work after the other."""
        both = [self.work(name, TIME_SLICE) for name in "ab"]
        lengths = [len(self.done)]
        for _ in range(8):
            self.clock.iterate()
            lengths.append(len(self.done))
        # A turn shows that there is no further step.
        self.assertEqual(lengths, [1, 2, 3, 4, 5, 5, 6, 6, 6])
        self.assertEqual(self.done, ["a0", "a1", "b0", "a2", "b1", "b2"])
        for each in both:
            self.successResultOf(each)

    def test_short_steps(self) -> None:
        """Steps that take little go together, as far as there is time."""
        self.successResultOf(self.work("a", TIME_SLICE / 5))
        longer = self.work("b", TIME_SLICE / 2)
        self.clock.iterate()
        self.assertEqual(self.done, ["a0", "a1", "a2", "b0", "b1"])
        self.clock.iterate()
        self.successResultOf(longer)
