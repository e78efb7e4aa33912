"""Nodes whose clocks differ, and a database whose clock is set."""

from __future__ import annotations

import time
from typing import Any

from twisted.logger import capturedLogs

from mta.queued import Filter, Message
from mta.settings import DAY
from tests.spool.cases import Listener
from tests.spool.contract import Contract, done, settlement
from tests.spool.postgres import NodesTestCase, PostgresSpool, PostgresTestCase

DIFFERENCE = "is {seconds:.0f} s ahead of the database's"


class ClockCase(Contract, NodesTestCase):
    """Nodes on one database."""

    def assert_near(self, found: float, wanted: float) -> None:
        """Two times are the same, but for what the test takes."""
        self.assertLess(abs(found - wanted), 60)


class DatabaseTests(ClockCase):
    """The clock of the database is set, and that of its nodes follows."""

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
        self.wait(spool.settle(settlement(message, self.now() + 900)))
        return message

    def remaining(self, spool: PostgresSpool) -> float:
        """Seconds until it is due."""
        due = self.wait(spool.next_due())
        assert due is not None
        return due - self.now()

    def test_set_back(self) -> None:
        """What waits is due no later than before, once for all nodes, and no message is younger."""
        one, other = self.process(), self.process()
        self.deferred(one)
        self.wait(one.beat())
        self.set_clock(-DAY)
        for spool in (one, other, one):
            self.wait(spool.beat())
        self.assert_near(self.remaining(other), 900.0)
        [entry] = self.tools().find(Filter())
        self.assert_near(entry.message.arrived, self.now())

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
