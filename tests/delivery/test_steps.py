"""Long work in steps."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.delivery.steps import StepsInTurn
from mta.link import RoundRobin
from tests.link.test_round_robin import Reactor


class InTurnTests(SynchronousTestCase):
    """Steps of several works in one order."""

    def test_one_at_a_time(self) -> None:
        """Each iteration of the reactor has one step, of one work after the other."""
        clock = Reactor()
        in_steps = StepsInTurn(RoundRobin(clock))
        done: list[str] = []

        def work(name: str) -> Iterator[None]:
            for number in range(3):
                done.append(f"{name}{number}")
                yield

        both = [Deferred.fromCoroutine(in_steps(work(name))) for name in "ab"]
        lengths = [len(done)]
        for _ in range(8):
            clock.iterate()
            lengths.append(len(done))
        # A turn shows that there is no further step.
        self.assertEqual(lengths, [1, 2, 3, 4, 5, 5, 6, 6, 6])
        self.assertEqual(done, ["a0", "a1", "b0", "a2", "b1", "b2"])
        for each in both:
            self.successResultOf(each)
