"""Crowded hops: what is put back into the spool for them, and who goes first."""

from twisted.internet.defer import Deferred

from mta.queue import backlog
from mta.queue.backlog import MIN_WAIT, Backlog
from mta.queue.outcomes import CROWDED
from mta.queued import Delivery, HopFailure, State
from mta.settings import HOUR, Queue
from mta.testing import (
    FakeContent,
)
from tests.queue.runners import ARRIVED, LATER, A, B, RunnerTests, message


class BoundTests(RunnerTests):
    """Memory is bounded, whatever comes in and whatever waits."""

    def setUp(self) -> None:
        super().setUp()
        self.going: list[Deferred[None]] = []
        self.agent.attempt = self.hold

    def hold(self, delivery: Delivery) -> Deferred[None]:
        self.going.append(Deferred())
        return self.going[-1]

    def test_messages(self) -> None:
        """What is accepted beyond the bound waits in the spool, and is taken when there is room."""
        self.runner = self.make(max_messages=2)
        self.runner.start()
        for id, domain in zip("1234", "abab", strict=True):
            self.accept_address(id, f"x@{domain}.example")
        self.assertEqual(["3", "4"], self.queue.released)
        for going in self.going[:2]:
            going.callback(None)
        self.clock.advance(0)
        self.assertEqual(["1", "2", "3", "4"], [id for _, id, _ in self.agent.deliveries])

    def test_octets(self) -> None:
        """Content counts too; a message over the bound goes when it is alone."""
        self.runner = self.make(max_octets=1000)
        self.accept_address("1", "x@a.example", content=FakeContent(b"x" * 5000))
        self.accept_address("2", "x@a.example")
        self.assertEqual(["2"], self.queue.released)
        self.assertEqual(1, len(self.going))

    def test_long_queue(self) -> None:
        """Of a long queue for one hop no more is in memory than is still free; the rest comes
        as soon as there is room."""
        self.runner = self.make(max_messages=10)
        for number in range(100):
            self.queue.put(message(f"{number:03}", "x@a.example"))
        self.runner.start()
        self.clock.advance(0)
        self.assertEqual(5, len(self.queue.leased))
        while self.going:
            self.going.pop(0).callback(None)
            self.clock.advance(0.1)
            self.assertLessEqual(len(self.queue.leased), 10)
        self.assertEqual(100, len(self.agent.deliveries))
        self.assertLess(self.clock.seconds(), MIN_WAIT)


class FairnessTests(RunnerTests):
    """Ten thousand messages for one hop delay neither another hop nor another sender."""

    settings = Queue(per_destination=1)

    def setUp(self) -> None:
        super().setUp()
        self.going: list[Deferred[None]] = []
        self.agent.attempt = self.hold
        self.runner = self.make(max_messages=100)

    def hold(self, delivery: Delivery) -> Deferred[None]:
        self.going.append(Deferred())
        return self.going[-1]

    def flood(self, count: int = 1000) -> None:
        for number in range(count):
            self.runner.accept(self.queue.lend(message(f"{number:04}", "x@a.example")))
        self.clock.advance(0)

    def delivered(self) -> list[str]:
        """The queue ids of what was handed to the agent."""
        return [id for _, id, _ in self.agent.deliveries]

    def go_on(self, times: int) -> None:
        for _ in range(times):
            self.going.pop(0).callback(None)
            self.clock.advance(0.001)

    def test_other_hop(self) -> None:
        """What comes after a flood for another hop goes out at once."""
        self.flood()
        self.accept_address("other", "x@b.example")
        self.assertEqual(["0000", "other"], self.delivered())

    def test_other_hop_in_the_spool(self) -> None:
        """What was due after a long queue for another hop goes out soon."""
        for number in range(1000):
            self.queue.put(message(f"{number:04}", "x@a.example"))
        self.queue.put(message("other", "x@b.example"), due=1.0)
        self.runner.start()
        self.run_until(5.0)
        self.assertEqual(["0000", "other"], self.delivered())

    def test_other_sender(self) -> None:
        """Who brings one message for a crowded hop is next but one."""
        self.flood()
        self.accept_address("other", "x@a.example", sender="t@t.example")
        self.go_on(2)
        self.assertIn("other", self.delivered()[:3])

    def test_many_senders(self) -> None:
        """Nor do many senders for one hop take all the room."""
        for number in range(1000):
            self.accept_address(str(number), "x@a.example", sender=f"{number}@s.example")
        self.assertLess(len(self.queue.leased), 80)

    def test_all_goes(self) -> None:
        """What was put off follows without a pause, all of it."""
        self.flood(300)
        self.go_on(300)
        self.assertEqual(300, len(set(self.delivered())))
        self.assertEqual({}, self.queue.waiting)

    def test_no_hot_loop(self) -> None:
        """While the hop stands still, its mail rests in the spool."""
        self.runner.start()
        self.flood()
        released = len(self.queue.released)
        self.run_until(MIN_WAIT / 2)
        self.assertEqual(released, len(self.queue.released))
        self.assertLess(len(self.queue.leases), 20)

    def test_hop_fails(self) -> None:
        """What was put off for a hop that proves dead is not hurried."""
        self.flood(300)
        self.going.pop().errback(HopFailure(LATER))
        self.clock.advance(1)
        self.assertEqual(1, len(self.delivered()))
        self.assertEqual(300, len(self.queue.waiting))

    def test_put_off_for_long(self) -> None:
        """Mail that has had no turn for an hour counts as tried: its history says why."""
        self.flood(100)
        self.clock.advance(HOUR)
        self.accept_address("old", "x@a.example")
        (attempt,) = self.last.progress[0].history
        self.assertEqual(str(CROWDED.reply), attempt.reply)

    def test_several_hops(self) -> None:
        """A message for a crowded hop and another goes to the other, and waits for the first."""
        self.flood()
        self.accept_address("both", "x@a.example", "y@b.example")
        self.going.pop().callback(None)
        self.clock.advance(0)
        self.assertIn((B, "both", ["y@b.example"]), self.agent.deliveries)
        settled = next(each for each in self.queue.settlements if each.id == "both")
        self.assertEqual([State.WAITING, State.DONE], [each.state for each in settled.progress])
        self.assertGreaterEqual(settled.due, ARRIVED + MIN_WAIT)


class BacklogTests(RunnerTests):
    """The messages that wait in the spool for a hop."""

    def test_bound(self) -> None:
        """Only so many are remembered."""
        self.patch(backlog, "MAX_REMEMBERED", 2)
        waiting = Backlog(self.queue)
        for sender in "abc":
            waiting.add(A, message(sender, "x@a.example"))
        self.assertEqual(["a", "b"], waiting.take(A, 5))
        waiting.add(A, message("d", "x@a.example"))
        waiting.forget(A)
        self.assertEqual([], waiting.take(A, 5))
