"""The order of those that have much to do."""

from __future__ import annotations

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.interfaces import IRoundRobin
from mta.link.round_robin import (
    CONTENT_COST,
    MAX_QUEUED_REST,
    MAX_REST,
    MESSAGE_COST,
    PRESENCE,
    REST,
    RoundRobin,
)

HOST, OTHER = "192.0.2.1", "192.0.2.2"


class Reactor(Clock):
    """A clock with iterations: what is called in one for the next is done in the next."""

    def iterate(self, seconds: float = 0.0) -> None:
        """Do what is due after this time."""
        self.rightNow += seconds
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
        await self.order.next(who, HOST)
        self.went.append(who)

    def bring(self, *all: int) -> None:
        """Let them have messages."""
        for who in all:
            Deferred.fromCoroutine(self._bring(who))

    async def _bring(self, who: int) -> None:
        await self.order.next_message(HOST)
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
        for took, rest in ((0.001, REST * (0.001 + CONTENT_COST)), (1.0, MAX_REST)):
            self.went.clear()
            self.go(1, 2)
            self.order.other_came(OTHER)
            self.clock.advance(took)
            self.clock.advance(rest * 0.9)
            self.assertEqual(self.went, [1])
            self.clock.advance(rest * 0.2)
            self.assertEqual(self.went, [1, 2])
            self.clock.advance(PRESENCE)  # none came meanwhile
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_others_that_wait(self) -> None:
        """They are there for a while after they came: they wait for a reply."""
        self.go(1, 2, 3, 4)
        self.order.other_came(OTHER)
        for number in range(1, 4):
            self.clock.iterate(0.001)
            self.assertEqual(self.went, list(range(1, number + 1)))
            self.clock.iterate(1.001 * REST * (0.001 + CONTENT_COST))
        self.assertEqual(self.went, [1, 2, 3, 4])

    def test_no_others(self) -> None:
        """A host with much to do does not rest for its own sessions."""
        self.go(1, 2, 3)
        for number in range(1, 4):
            self.order.other_came(HOST)
            self.assertEqual(self.went, list(range(1, number + 1)))
            self.clock.iterate(0.001)

    def test_messages(self) -> None:
        """A host that is alone waits for nothing; else it brings one after the other."""
        self.bring(1, 2, 3)
        self.order.other_came(HOST)
        self.bring(4)
        self.assertEqual(self.went, [1, 2, 3, 4])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.order.other_came(OTHER)
        self.bring(5, 6, 7)
        self.assertEqual(self.went, [1, 2, 3, 4, 5])
        self.clock.advance(0)
        self.clock.advance(REST * MESSAGE_COST * 0.9)
        self.assertEqual(self.went, [1, 2, 3, 4, 5])
        self.clock.advance(REST * MESSAGE_COST * 0.2)
        self.assertEqual(self.went, [1, 2, 3, 4, 5, 6])
        self.clock.advance(PRESENCE)
        self.assertEqual(self.went, [1, 2, 3, 4, 5, 6, 7])
        self.clock.advance(0)
        self.bring(8, 9)
        self.assertEqual(self.went, [1, 2, 3, 4, 5, 6, 7, 8, 9])

    def test_portions(self) -> None:
        """Work on queued mail and sessions have one turn after the other, whoever is more."""
        self.order.other_came(OTHER)
        for number in range(10, 13):
            Deferred.fromCoroutine(self._work(number))
        self.go(1, 2, 3, 4)
        for _ in range(14):
            self.clock.iterate(0.001)
            self.clock.iterate(1.001 * REST * (0.001 + CONTENT_COST))
        self.assertEqual(self.went, [10, 1, 11, 2, 12, 3, 4])

    async def _work(self, number: int) -> None:
        await self.order.next_portion()
        self.went.append(number)

    def test_portions_rest(self) -> None:
        """Queued mail can wait: it rests longer than content, and never for long."""
        for who, cost, rest in ((1, 0.0, MAX_REST), (2, 1.0, MAX_QUEUED_REST)):
            self.went.clear()
            self.order.other_came(OTHER)
            Deferred.fromCoroutine(self.order.next_portion(cost))
            self.go(who)
            self.clock.advance(0)
            self.clock.advance(rest * 0.9)
            self.assertEqual(self.went, [])
            self.clock.advance(rest * 0.2)
            self.assertEqual(self.went, [who])
            self.clock.advance(PRESENCE)
