"""The order of those that have much to do."""

from __future__ import annotations

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.interfaces import IRoundRobin
from mta.link.round_robin import MAX_REST, REST, RoundRobin


class Reactor(Clock):
    """A clock with iterations: what is called in one for the next is done in the next."""

    def iterate(self) -> None:
        """Do what is due."""
        for call in self.getDelayedCalls():
            if call.getTime() <= self.seconds():
                assert isinstance(call, DelayedCall)
                act, arguments = call.func, call.args
                call.cancel()
                act(*arguments)


class RoundRobinTests(SynchronousTestCase):
    """See `RoundRobin`."""

    def setUp(self) -> None:
        self.clock = Reactor()
        self.order = RoundRobin(self.clock)
        self.went: list[int] = []

    def go(self, *all: int) -> None:
        """Let them have something to do."""
        for who in all:
            Deferred.fromCoroutine(self._go(who))

    async def _go(self, who: int) -> None:
        await self.order.next(who)
        self.went.append(who)

    def test_alone(self) -> None:
        """One that is alone waits for nothing, and costs no timer after the first time."""
        self.assertTrue(verifyObject(IRoundRobin, self.order))
        self.go(1)
        self.clock.advance(0)
        self.go(1, 1, 1)
        self.assertEqual(self.went, [1, 1, 1, 1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many(self) -> None:
        """One goes on in each iteration, and each in its turn."""
        for _ in range(3):
            self.went.clear()
            self.go(*range(1, 11))
            for number in range(1, 11):
                self.assertEqual(self.went, list(range(1, number + 1)))
                self.clock.iterate()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_does_not_go_twice(self) -> None:
        """It waits behind others that do."""
        self.go(1, 2, 1, 3)
        self.clock.pump([0] * 4)
        self.assertEqual(self.went, [1, 2, 1, 3])

    def test_others(self) -> None:
        """While they come there is a rest, by the time that a turn took, and never a long one."""
        for took, rest in ((0.001, REST * 0.001), (1.0, MAX_REST)):
            self.went.clear()
            self.go(1, 2)
            self.order.other_came()
            self.clock.advance(took)
            self.clock.advance(rest * 0.9)
            self.assertEqual(self.went, [1])
            self.clock.advance(rest * 0.2)
            self.assertEqual(self.went, [1, 2])
            self.clock.advance(0)  # none came meanwhile
            self.assertEqual(self.clock.getDelayedCalls(), [])
