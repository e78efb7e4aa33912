"""Messages for many addresses: planned and delivered in portions, between other mail."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred

from mta.mail import Agent, Hop
from mta.metrics import NullMeter
from mta.queue.grouping import MAX_TARGETS
from mta.queue.long_plans import MAX_FOR_MANY
from mta.queue.planning import STEP
from mta.queue.runner import Runner
from mta.queued import MAX_HISTORY, State
from mta.smtp.steps import at_once
from tests.queue.runners import DELIVERED, LATER, RunnerTests

MAILDIR = Hop(Agent.MAILDIR, "/mail/{local}")
LIST = "list@m.example"
MANY = 3 * STEP  # members of the list


class Turns:
    """Long work whose steps are done when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    async def in_steps(self, steps: Iterator[None]) -> None:
        """Do one step after each turn."""
        for _ in steps:
            turn: Deferred[None] = Deferred()
            self.waiting.append(turn)
            await turn

    def next(self) -> None:
        """Let the one that waits longest do its step."""
        self.waiting.pop(0).callback(None)


class LongTests(RunnerTests):
    """A list of a thousand, and others."""

    def setUp(self) -> None:
        super().setUp()
        self.router.hops["m.example"] = MAILDIR
        self.router.ours.add("m.example")
        self.router.aliases[LIST] = [f"m{number}@m.example" for number in range(MANY)]
        self.agent.outcome = DELIVERED
        self.turns = Turns()
        self.runner = self.make_in_steps(self.turns.in_steps)

    def make_in_steps(self, in_steps: object, **limits: int) -> Runner:
        runner = Runner(
            self.queue,
            self.clock,
            NullMeter(),
            now=self.now,
            random=lambda: 0.5,
            in_steps=in_steps,
            **limits,
        )
        runner.use(self.config(self.settings))
        return runner

    def work(self) -> None:
        """Do all of the long work."""
        idle = 0
        while idle < 10:
            self.clock.advance(0.01)
            idle = 0 if self.turns.waiting else idle + 1
            if self.turns.waiting:
                self.turns.next()

    def reached(self, id: str) -> list[str]:
        """The addresses that a message was delivered to, sorted."""
        deliveries = self.agent.deliveries
        return sorted(each for _, name, all in deliveries if name == id for each in all)


class PlanTests(LongTests):
    """How long plans are made."""

    def test_short_mail_goes_on(self) -> None:
        """Mail for one is delivered while that for many is planned."""
        self.accept_address("many", LIST)
        self.accept_address("one", "alice@m.example", sender="other@s.example")
        self.clock.pump([0.01] * 9)
        self.assertEqual([id for _, id, _ in self.agent.deliveries], ["one"])
        self.work()
        self.assertEqual(self.reached("many"), sorted(self.router.aliases[LIST]))
        self.assertEqual(self.queue.messages, [])

    def test_one_after_the_other(self) -> None:
        """No more are planned than are to be delivered in a moment; in the end all are."""
        waiting: Deferred[None] = Deferred()
        self.agent.attempt = lambda delivery: waiting
        for number in range(9):
            self.accept_address(f"M{number}", LIST)
        self.work()
        planned = [each for each in self.runner._active if each.outstanding > 1]
        self.assertEqual(len(planned), -(-MAX_FOR_MANY // (MANY // MAX_TARGETS)))
        waiting.callback(None)
        self.work()
        for number in range(9):
            self.assertEqual(len(self.reached(f"M{number}")), MANY)
        self.assertEqual(self.queue.messages, [])

    def test_fault_of_the_router(self) -> None:
        """A bug that shows late defers the message, and one line says so."""
        route = self.router.route

        def broken(*arguments: object) -> Iterator[object]:
            yield from route(*arguments)
            raise ValueError("a bug")

        self.router.route = broken
        self.accept_address("1", LIST)
        self.work()
        self.assertEqual(self.states(), [State.WAITING])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.agent.deliveries, [])

    def test_many_recipients(self) -> None:
        """Each recipient of a long plan has its outcome."""
        addresses = [f"r{number}@m.example" for number in range(2 * STEP)]
        self.accept_address("1", *addresses)
        self.work()
        self.assertEqual(self.reached("1"), sorted(addresses))
        self.assertEqual(self.queue.messages, [])


class PortionTests(LongTests):
    """How much of one message goes at once."""

    def setUp(self) -> None:
        super().setUp()
        self.runner = self.make_in_steps(at_once)

    def test_others_come_between(self) -> None:
        """Mail for one Maildir waits for one portion for many, not for all of them."""
        self.accept_address("many", LIST)
        self.accept_address("one", "alice@m.example")
        self.work()
        ids = [id for _, id, _ in self.agent.deliveries]
        self.assertEqual(ids.count("many"), -(-MANY // MAX_TARGETS))
        self.assertLess(ids.index("one"), 4)

    def test_recorded_as_a_whole(self) -> None:
        """What could not be delivered is tried again, and nothing else is."""
        self.agent.outcomes["m500@m.example"] = LATER
        self.accept_address("1", LIST)
        self.work()
        self.assertEqual(len(self.queue.settlements), 1)
        self.assertEqual(self.states(), [State.WAITING])
        self.assertEqual(len(self.last.progress[0].settled), MANY - 1)

    def test_history(self) -> None:
        """Its history has the last of many outcomes."""
        self.agent.outcome = LATER
        self.accept_address("1", LIST)
        self.work()
        addresses = [each.address for each in self.last.progress[0].history]
        reached = [each for _, _, all in self.agent.deliveries for each in all]
        self.assertEqual(addresses, reached[-MAX_HISTORY:])


class GivenBackTests(LongTests):
    """Messages that wait for their plan, and go back."""

    def test_recall(self) -> None:
        """The operator takes one that waits, and one that is being planned."""
        for id in ("1", "2", "3"):
            self.accept_address(id, LIST)
        self.clock.advance(0.01)
        self.queue.unwanted = {"1", "3"}
        self.runner.recall()
        self.work()
        self.assertEqual(self.reached("1") + self.reached("3"), [])
        self.assertEqual(len(self.reached("2")), MANY)

    def test_stop(self) -> None:
        """All are given back to the spool at once."""
        for id in ("1", "2"):
            self.accept_address(id, LIST)
        stopped = Deferred.fromCoroutine(self.runner.stop(5))
        self.work()
        self.successResultOf(stopped)
        self.assertEqual(self.agent.deliveries, [])
        self.assertEqual(sorted(self.queue.released), ["1", "2"])

    def test_crowded(self) -> None:
        """As much of it stays in memory as of other mail."""
        self.runner = self.make_in_steps(self.turns.in_steps, max_messages=10)
        for number in range(8):
            self.accept_address(f"M{number}", LIST)
        self.assertEqual(len(self.runner._active), 5)
        for _ in range(20):
            self.work()
        for number in range(8):
            self.assertEqual(len(self.reached(f"M{number}")), MANY)
