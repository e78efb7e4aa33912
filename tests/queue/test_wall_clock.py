"""The wall clock is set while mail waits: nothing stands still, nothing is given up for it."""

from __future__ import annotations

import time

from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from mta.queue.leases import MAX_SLEEP
from mta.queued import Delivery, State
from mta.service.steady import use_steady_clock
from mta.settings import DAY, HOUR, Queue
from tests.queue.runners import ARRIVED, LATER, RunnerTests, message


class RunnerTimeTests(RunnerTests):
    """The runner, whose timers and whose dues are of two clocks."""

    settings = Queue(retry=(60.0,), give_up_after=DAY, warn_after=4 * HOUR)
    jump = 0.0

    def now(self) -> float:
        return ARRIVED + self.clock.seconds() + self.jump

    def test_mail_under_way(self) -> None:
        """An attempt during which the clock was set is no older, nor younger, for that."""
        for jump in (10 * DAY, -10 * DAY, HOUR, -HOUR):
            gates: list[Deferred[None]] = []

            def wait(delivery: Delivery, gates: list[Deferred[None]] = gates) -> Deferred[None]:
                gates.append(Deferred())
                return gates[-1]

            self.jump = 0.0
            self.runner = self.make()
            self.agent.attempt = wait
            self.agent.outcomes["x@a.example"] = LATER
            self.accept(message("1", "x@a.example", arrived=self.now()))
            self.jump = jump
            gates[0].callback(None)
            self.clock.advance(0)
            self.assertEqual([State.WAITING], self.states(), jump)
            self.assertEqual([], self.notices.asked, jump)
            self.assertAlmostEqual(self.now() + 60, self.last.due, delta=7)
            self.queue.waiting.clear()

    def test_woken_in_time(self) -> None:
        """What is due soon wakes a runner that went to sleep before the clock was set."""
        for jump in (DAY, -DAY):
            self.jump = 0.0
            self.runner = self.make()
            self.runner.start()
            self.clock.advance(1)
            self.jump = jump
            self.agent.outcomes["x@a.example"] = LATER
            self.accept(message("1", "x@a.example", arrived=self.now()))
            self.agent.outcomes.clear()
            self.run_until(self.clock.seconds() + 70)
            self.assertEqual([State.DONE], self.states(), jump)
            self.successResultOf(Deferred.fromCoroutine(self.runner.stop(0)))

    def test_looks_soon(self) -> None:
        """However far away the first due time seems, the spool is asked again within a minute."""
        self.queue.put(message("1", "x@a.example"), self.now() + DAY)
        self.runner.start()
        self.clock.advance(1)
        self.queue.put(message("1", "x@a.example"), self.now())  # as the spool does, for a jump
        self.run_until(MAX_SLEEP + 2)
        self.assertEqual([State.DONE], self.states())


class ReactorTests(SynchronousTestCase):
    """Timers count by a clock that nobody sets."""

    def test_set_back(self) -> None:
        """A pause under way ends in time, and new ones do."""
        reactor = SelectReactor()
        self.addCleanup(reactor.removeAll)
        before = reactor.callLater(50, lambda: None)
        use_steady_clock(reactor)
        after = reactor.callLater(100, lambda: None)
        real = time.time
        for jump in (-HOUR, HOUR):
            self.patch(time, "time", lambda jump=jump: real() + jump)
            self.assertLess(abs(before.getTime() - reactor.seconds() - 50), 20)
            self.assertLess(abs(after.getTime() - reactor.seconds() - 100), 20)
            timeout = reactor.timeout()
            assert timeout is not None
            self.assertLess(abs(timeout - 50), 20)
