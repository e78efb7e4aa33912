"""Nodes whose clocks differ, and a database whose clock is set."""

from __future__ import annotations

import time
from typing import Any

from twisted.logger import capturedLogs

from mta.queued import Filter, Message
from mta.settings import DAY
from tests.spool.cases import Listener
from tests.spool.contract import Contract, done, settlement
from tests.spool.postgres import NodesTestCase, PostgresSpool, PostgresTestCase, PostgresTools
from tests.spool.test_time import JUMPS

DIFFERENCE = "is {seconds:.0f} s ahead of the database's"


class ClockCase(Contract, NodesTestCase):
    """Nodes on one database."""

    def assert_near(self, found: float, wanted: float) -> None:
        """Two times are the same, but for what the test takes."""
        self.assertLess(abs(found - wanted), 30)


class DatabaseTests(ClockCase):
    """The clock of the database is set, and nothing is due later or earlier for it."""

    jumped = 0.0

    def now(self) -> float:
        """Seconds since the epoch, as the database has them."""
        return super().now() + self.jumped

    def set_clock(self, seconds: float) -> None:
        """What nodes find after that: it is another time, and all of the table as it was."""
        self.jumped += seconds
        self.sql("UPDATE owner SET alive_until = alive_until - make_interval(secs => %s)", seconds)

    def deferred(self, spool: PostgresSpool) -> Message:
        """A message that waits for its next attempt, in a quarter of an hour."""
        message = self.commit(spool)
        self.wait(spool.settle(settlement(message, spool.now() + 900)))
        return message

    def remaining(self, spool: PostgresSpool) -> float:
        """Seconds until it is due."""
        due = self.wait(spool.next_due())
        assert due is not None
        return due - spool.now()

    def set_and_beat(self, seconds: float, *spools: PostgresSpool) -> None:
        """Set the clock, and let processes see that."""
        self.set_clock(seconds)
        for spool in spools:
            self.wait(spool.beat())

    def assert_waits(self, *spools: PostgresSpool) -> None:
        """The message is due as it was, whichever process looks."""
        for spool in spools:
            self.assert_near(self.remaining(spool), 900.0)

    def test_set(self) -> None:
        """What waits is due as it was, and is no older for it; all processes see that once."""
        one, other = self.process(), self.process()
        self.deferred(one)
        for seconds in JUMPS:
            with self.subTest(seconds=seconds):
                self.set_and_beat(seconds, one, other)
                later = self.process()
                for spool in (one, other, later, other, one):
                    self.wait(spool.beat())
                    self.assert_waits(spool)
                tools = PostgresTools(self.url, self.path, one.now)
                self.addCleanup(tools.close)
                [entry] = tools.find(Filter())
                self.assert_near(entry.message.arrived, one.now())
                self.stop(later)

    def test_seen_late(self) -> None:
        """A process that was away meanwhile adds up what others have corrected."""
        one, other = self.process(), self.process()
        self.deferred(one)
        self.set_and_beat(DAY, one)
        self.set_and_beat(-3 * DAY, one)
        self.assert_waits(one, other)
        self.set_and_beat(DAY, other)
        self.wait(one.beat())
        self.assert_waits(one, other)

    def test_before_it_is_seen(self) -> None:
        """What is put off between the jump and the next beat is due as it should be."""
        one, other = self.process(), self.process()
        self.set_and_beat(-DAY, one)
        self.deferred(other)
        self.wait(other.beat())
        self.assert_waits(one, other)

    def test_begun_before_it_is_seen(self) -> None:
        """A process that starts between goes by what the older ones correct."""
        for seconds in (DAY, -DAY):
            with self.subTest(seconds=seconds):
                one = self.process()
                message = self.deferred(one)
                self.set_clock(seconds)
                later = self.process()
                for spool in (one, later, one, later):
                    self.wait(spool.beat())
                    self.assert_waits(one)
                self.assert_waits(later)
                self.wait(one.remove([message.id], 0.0))
                self.stop(one)
                self.stop(later)

    def test_slow(self) -> None:
        """A clock that goes wrong slowly is followed, and moves nothing."""
        spool = self.process()
        for _ in range(3):
            self.set_and_beat(50, spool)
        self.assert_near(spool.now(), self.now())

    def test_at_a_start(self) -> None:
        """So it is where the clock went back while nothing ran."""
        spool = self.process()
        self.deferred(spool)
        self.stop(spool)
        self.set_clock(-DAY)
        spool = self.process()
        self.assert_waits(spool)
        self.wait(spool.beat())
        self.assert_waits(spool)

    def test_dead_before_it_was_set_back(self) -> None:
        """It is believed to live for a lifetime, and not until that day has come again."""
        dead, other = self.process(), self.process()
        message = self.commit(dead)
        self.ended.add(dead)
        PostgresTestCase.kill(self, dead)
        self.set_clock(-DAY)
        self.wait(other.beat())
        query = "SELECT max(extract(epoch FROM alive_until - clock_timestamp())) FROM owner"
        [(seconds,)] = self.sql(query)
        self.assertLessEqual(seconds, 60)
        self.sql("UPDATE owner SET alive_until = '-infinity' WHERE id = %s", dead._owner.number)
        self.take_over(other)
        self.assertEqual(self.due(other), [message.id])

    def test_leases_hold(self) -> None:
        """Set forward or back, nothing is taken from a process that lives."""
        one, other = self.process(), self.process()
        message = self.commit(one)
        for seconds in (DAY, -DAY, 3600.0, -3600.0):
            for spool in (one, other):
                self.wait(spool.beat())
            self.set_clock(seconds)
            self.assertEqual(self.wait(other.take_over()), 0)
            self.assertEqual(self.wait(other.lease_due(9)), [])
            self.wait(one.beat())
            self.assertNotIn("recall", self.listeners[one].heard)
        self.wait(one.settle(done(message)))
        self.assertEqual([*self.tools().find(Filter())], [])


class NodeClockTests(ClockCase):
    """The clocks of two nodes are wrong: mail goes by that of the database."""

    def node(self, seconds: float) -> PostgresSpool:
        """A process on a node whose clock is ahead."""
        folder = self.folder()
        listener = Listener()
        here = time.time
        self.patch(time, "time", lambda: here() + seconds)
        try:
            spool = PostgresSpool(
                self.url, folder, self.clock, self.pool, listener, node=folder.name
            )
            spool.start()
        finally:
            self.patch(time, "time", here)
        self.addCleanup(self.stop, spool)
        return spool

    def test_a_day(self) -> None:
        """One is a day ahead, one a day behind: each has what the other took, at once."""
        with capturedLogs() as events:
            ahead, behind = self.node(DAY), self.node(-DAY)
        told = [event["seconds"] for event in events if DIFFERENCE in event["log_format"]]
        self.assertEqual([round(seconds / DAY) for seconds in told], [1, -1])
        for taker, other in ((ahead, behind), (behind, ahead)):
            message = self.commit(taker)
            self.assert_near(message.arrived, time.time())
            self.wait(taker.release({message.id: 0.0}))
            self.wait(other.beat())  # the clock of the test stands still
            [again] = self.wait(other.lease_due(9))
            self.assert_near(other.now(), time.time())
            waiting: Any = settlement(again, other.now() + 900)
            self.wait(other.settle(waiting))
            due = self.wait(taker.next_due())
            self.assert_near(due - taker.now(), 900)
            self.wait(other.lease([message.id]))
            self.wait(other.settle(done(again)))
