"""Mail that is due for hops that are down: put off in bulk, without looking at each message."""

from __future__ import annotations

import math
from collections.abc import Sequence

from twisted.internet.defer import succeed
from twisted.logger import LogLevel, capturedLogs

from mta.mail import Agent, Hop, Mailbox, Recipient
from mta.queue.waiting_log import INTERVAL, MAX_HOPS, WaitingLog
from mta.queued import Filter, HistoryEntry, HopFailure, Message, Progress, State
from mta.settings import DAY, HOUR
from mta.spool import postponing, queue_id
from tests.commands.test_queue import QueueCase
from tests.queue.runners import ARRIVED, UNREACHABLE, RunnerTests, message

DEAD, OTHER = Mailbox("a", "dead.example"), Mailbox("b", "other.example")


class SpoolTests(QueueCase):
    """What is put off, and until when."""

    def put_off(
        self, now: float, warn_after: float = 0.0, give_up_after: float = 5 * DAY, **dues: float
    ) -> dict[str, int]:
        connection = self.tools._connection
        hops = {f"mx:{domain}.example": due for domain, due in dues.items()}
        return dict(postponing.postpone(connection, now, hops, warn_after, give_up_after))

    def tried(self, *recipients: Mailbox, hop: str = "mx:dead.example") -> str:
        """A message that was tried in vain; returns its id."""
        name = self.enqueue(*recipients)
        history = (HistoryEntry(1.0, hop, "deferred", "451 No"),)
        self.attempt(name, *(Progress(Recipient(each), history=history) for each in recipients))
        return name

    def due(self, name: str) -> float:
        [entry] = self.tools.find(Filter(ids=frozenset({name})))
        return entry.due

    def test_only_what_waits_for_nothing_else(self) -> None:
        """By its last attempt, or by its domain where it had none; whoever else waits keeps it."""
        now = queue_id.arrival(queue_id.decode(self.enqueue(OTHER))) + 60
        dead = [self.tried(OTHER), self.enqueue(DEAD), self.tried(DEAD, DEAD)]
        others = [
            self.tried(DEAD, hop="smtp://relay:25"),
            self.enqueue(DEAD, OTHER),
            self.enqueue(OTHER),
        ]
        before = [self.due(name) for name in others]
        self.assertEqual({"mx:dead.example": 3}, self.put_off(now, dead=now + 100))
        self.assertEqual([now + 100] * 3, [self.due(name) for name in dead])
        self.assertEqual(before, [self.due(name) for name in others])
        self.assertEqual({}, self.put_off(now, dead=now + 200))

    def test_several_hops(self) -> None:
        """It is due when the first of them is."""
        name = self.enqueue(DEAD, OTHER)
        now = queue_id.arrival(queue_id.decode(name)) + 60
        self.put_off(now, dead=now + 100, other=now + 50)
        self.assertEqual(now + 50, self.due(name))

    def test_in_time(self) -> None:
        """Who has to be warned, or told that it is given up, is told in time."""
        name = self.enqueue(DEAD)
        arrived = queue_id.arrival(queue_id.decode(name))
        self.put_off(arrived + 60, warn_after=100, dead=arrived + HOUR)
        self.assertEqual(arrived + 100, self.due(name))
        self.assertEqual({}, self.put_off(arrived + 100, warn_after=100, dead=arrived + HOUR))
        self.put_off(arrived + 100, give_up_after=200, dead=arrived + HOUR)
        self.assertEqual(arrived + 200, self.due(name))

    def test_what_is_not_theirs(self) -> None:
        """What is on hold, or held for a peer, is left alone."""
        kept, held = self.enqueue(DEAD), self.enqueue(DEAD)
        self.tools.hold([kept])
        self.attempt(held, Progress(Recipient(DEAD), State.HELD, "office"))
        now = queue_id.arrival(queue_id.decode(held)) + 60
        self.assertEqual({}, self.put_off(now, dead=now + 100))
        self.assertEqual(math.inf, self.due(kept))

    def test_portions(self) -> None:
        """No transaction takes long."""
        names = [self.enqueue(DEAD) for _ in range(5)]
        now = queue_id.arrival(queue_id.decode(names[-1])) + 60
        self.patch(postponing, "MAX_EXAMINED", 2)
        self.assertEqual(
            [2, 2, 1, 0], [sum(self.put_off(now, dead=now + 100).values()) for _ in range(4)]
        )


class RunnerBulkTests(RunnerTests):
    """A long queue for hops that are down."""

    count = 3000

    def setUp(self) -> None:
        super().setUp()
        self.runner = self.make(max_messages=200)

        async def fail(delivery: object) -> None:
            raise HopFailure(UNREACHABLE)

        self.agent.attempt = fail
        history = (HistoryEntry(ARRIVED, "mx:a.example", "deferred", "451 No"),)
        for number in range(self.count):
            old = message(f"{number:04}", "x@a.example")
            progress = tuple(Progress(each.recipient, history=history) for each in old.progress)
            self.queue.put(message(old.id, "x@a.example", progress=progress, attempts=1))

    def test_few_are_looked_at(self) -> None:
        """One portion finds out that the hop is down; the rest is put off, with one line."""
        leased: list[int] = []
        lease = self.queue.lease_due

        async def counted(limit: int) -> Sequence[Message]:
            found = await lease(limit)
            leased.append(len(found))
            return found

        self.queue.lease_due = counted  # type: ignore[method-assign]
        with capturedLogs() as events:
            self.runner.start()
            self.run_until(INTERVAL + 20)
        self.assertGreater(sum(self.queue.postponed), self.count - 500)
        self.assertLess(sum(leased), 500)
        infos = [each for each in events if each["log_level"] is LogLevel.info]
        self.assertLess(len(infos), 20, infos[:20])
        lines = [each for each in infos if "go on waiting" in each["log_format"]]
        self.assertEqual({"mx:a.example"}, {each["hop"] for each in lines})

    def test_healthy_mail_goes_on(self) -> None:
        """What is due behind them for another hop is not kept."""
        self.queue.put(message("9999", "x@b.example"), due=1.0)
        sent: list[str] = []

        async def some_fail(delivery: object) -> None:
            if delivery.message.id != "9999":  # type: ignore[attr-defined]
                raise HopFailure(UNREACHABLE)
            sent.append("9999")

        self.agent.attempt = some_fail
        self.runner.start()
        self.run_until(5)
        self.assertEqual(["9999"], sent)

    def test_they_come_back(self) -> None:
        """When the hop is there again, all of it goes out."""
        self.runner.start()
        self.run_until(100)
        self.agent.attempt = lambda delivery: succeed(None)
        self.run_until(3 * HOUR)
        self.assertEqual({}, self.queue.waiting)

    def test_a_host_with_two_users(self) -> None:
        """What history can't tell apart is not put off for each other's sake."""
        first = Hop(Agent.SMTP, "relay", 25, user="alice")
        other = Hop(Agent.SMTP, "relay", 25, user="bob")
        down = self.runner._active.destinations
        down._down.failed(first, UNREACHABLE)
        self.assertEqual({"smtp://relay:25"}, set(down.waits()))
        down._users["smtp://relay:25"] = {first, other}
        self.assertEqual({}, down.waits())


class WaitingLogTests(RunnerTests):
    """One line a hop and minute."""

    def test_counts(self) -> None:
        """Told after a minute, the hops with most first, and the others together."""
        log = WaitingLog(self.clock)
        for number in range(MAX_HOPS + 3):
            log.add({f"mx:{number}": number + 1})
        log.add({"mx:5": 1000})
        with capturedLogs() as events:
            self.clock.advance(INTERVAL - 1)
            self.assertEqual([], events)
            self.clock.advance(1)
        self.assertEqual(
            (MAX_HOPS + 1, "mx:5", 1006), (len(events), events[0]["hop"], events[0]["count"])
        )
        self.assertEqual((3, 1 + 2 + 3), (events[-1]["hops"], events[-1]["count"]))
        self.assertEqual([], self.clock.getDelayedCalls())
