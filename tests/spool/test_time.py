"""Clocks that jump, machines that sleep, processes that stand still."""

from __future__ import annotations

from typing import Any

from mta.queued import Filter, Message
from mta.spool import heartbeat
from mta.spool.clock import TOLERANCE, Reading, jump
from mta.spool.sqlite import SqliteSpool
from mta.spool.take_over import MAX_SILENT_LOOKS
from tests.spool.cases import SpoolTestCase, settlement

HOUR = 3600.0
DAY = 24 * HOUR
JUMPS = (HOUR, DAY, 365 * DAY, -HOUR, -DAY, -365 * DAY, 2 * TOLERANCE, -2 * TOLERANCE)


class JumpTests(SpoolTestCase):
    """The wall clock is set."""

    def setUp(self) -> None:
        super().setUp()
        self.set_by = 0.0
        self.boot = 0.0

    def now(self) -> float:
        """Seconds since the epoch, as the clock has them."""
        return super().now() + getattr(self, "set_by", 0.0)

    def uptime(self) -> float:
        """Seconds since the boot."""
        return self.clock.seconds() - self.boot

    def restartable(self, **more: Any) -> SqliteSpool:
        """A process with a clock that nobody sets."""
        return super().restartable(uptime=self.uptime, **more)

    def waiting(self, spool: SqliteSpool, seconds: float = 900.0) -> Message:
        """A message that waits for its next attempt."""
        message = self.commit(spool)
        self.wait(spool.settle(settlement(message, self.now() + seconds)))
        return message

    def remaining(self, spool: SqliteSpool) -> float:
        """Seconds until it is due."""
        due = self.wait(spool.next_due())
        assert due is not None
        return due - self.now()

    def test_while_it_runs(self) -> None:
        """What waits is due no later than before, and nothing is older for it."""
        for seconds in JUMPS:
            with self.subTest(seconds=seconds):
                spool = self.restartable()
                message = self.waiting(spool)
                self.wait(spool.beat())
                self.set_by += seconds
                self.wait(spool.beat())
                self.assertEqual(self.heard(spool), ["wake"])
                expected = 900.0 if seconds < 0 else 900.0 - seconds
                self.assertAlmostEqual(self.remaining(spool), expected, delta=1)
                (entry,) = self.tools().find(Filter())
                self.assertAlmostEqual(self.now() - entry.message.arrived, 0.0, delta=1)
                self.tools().delete([message.id])
                self.wait(spool.stop())

    def test_between_beats(self) -> None:
        """A clock that is set wrong and right again before a beat moves nothing for good."""
        for seconds in (DAY, -DAY, 10 * DAY):
            with self.subTest(seconds=seconds):
                spool = self.restartable()
                waiting = self.waiting(spool, seconds=0.0)
                self.set_by += seconds
                (message,) = self.wait(spool.lease([waiting.id]))
                self.assertAlmostEqual(self.now() - message.arrived, 0.0, delta=1)
                self.wait(spool.settle(settlement(message, self.now() + 900)))
                self.set_by -= seconds
                self.wait(spool.beat())
                expected = 900.0 + min(0.0, seconds)
                self.assertAlmostEqual(self.remaining(spool), expected, delta=1)
                self.tools().delete([waiting.id])
                self.wait(spool.stop())

    def test_at_a_start(self) -> None:
        """So it is where the clock went back while nothing ran, even if the machine did not."""
        for seconds in (-HOUR, -DAY):
            for booted in (False, True):
                with self.subTest(seconds=seconds, booted=booted):
                    spool = self.restartable()
                    message = self.waiting(spool)
                    self.wait(spool.stop())
                    self.set_by += seconds
                    if booted:
                        self.patch_boot(f"boot {seconds}")
                    spool = self.restartable()
                    self.assertAlmostEqual(self.remaining(spool), 900.0, delta=1)
                    self.tools().delete([message.id])
                    self.wait(spool.stop())

    def patch_boot(self, name: str) -> None:
        """The machine was started anew."""
        self.patch(__import__("mta.spool.clock").spool.clock, "boot_id", lambda: name)
        self.boot = self.clock.seconds()

    def test_once_for_all(self) -> None:
        """Of two processes that see it, one changes what waits."""
        one, other = self.process(), self.process()
        self.waiting(one)
        self.set_by -= HOUR
        self.wait(one.beat())
        self.wait(other.beat())
        self.assertAlmostEqual(self.remaining(one), 900.0, delta=1)

    def test_on_hold(self) -> None:
        """What has no time gets none."""
        spool = self.process()
        message = self.waiting(spool)
        self.tools().hold([message.id])
        self.set_by -= HOUR
        self.wait(spool.beat())
        self.assertIsNone(self.wait(spool.next_due()))

    def test_nobody_is_believed_dead(self) -> None:
        """Two processes: a jump, either way, leaves each its leases."""
        one, other = self.process(), self.process()
        message = self.commit(one)
        for seconds in JUMPS:
            self.set_by += seconds
            self.assertEqual(self.wait(other.take_over()), 0)
            self.assertEqual(self.wait(other.lease_due(9)), [])
        self.assertEqual(self.wait(one.recalled([message.id])), [])

    def test_new_mail_after_a_step_back(self) -> None:
        """It is of today, though its id has to be greater than the last."""
        spool = self.process()
        self.commit(spool)
        self.set_by -= DAY
        message = self.commit(spool)
        self.assertAlmostEqual(message.arrived, self.now(), delta=1)
        self.wait(spool.release({message.id: 0.0}))
        arrived = [each.arrived for each in self.wait(spool.lease_due(9))]
        self.assertAlmostEqual(arrived[0], self.now(), delta=1)

    def test_sleep_is_no_jump(self) -> None:
        """A machine that slept knows for how long; one that was off does not, and needs not."""
        for boots in (("a", "a"), ("a", "b")):
            before, after = Reading(1000.0, 50.0, boots[0]), Reading(9000.0, 8050.0, boots[1])
            self.assertEqual(jump(before, after), 0.0)


class FrozenTests(SpoolTestCase):
    """A process that stands still, and goes on."""

    def test_taken_over(self) -> None:
        """Others take its mail after many looks; it hears of that before it tries anything."""
        frozen, other = self.process(), self.process()
        message = self.commit(frozen)
        frozen._heartbeat.stop()
        for _ in range(MAX_SILENT_LOOKS):
            self.assertEqual(self.wait(other.take_over()), 0)
        self.assertEqual(self.wait(other.take_over()), 1)
        (again,) = self.wait(other.lease_due(9))
        self.assertTrue(again.recovered)
        self.clock.advance(heartbeat.MAX_SURE)
        self.assertFalse(frozen.begin_attempt(message.id))
        self.heard(frozen)
        self.wait(frozen.beat())
        self.assertEqual(self.heard(frozen), ["recall"])
        self.assertEqual(self.wait(frozen.recalled([message.id])), [message.id])
        self.wait(frozen.beat())
        self.assertEqual(self.heard(frozen), [])

    def test_beats_are_seen(self) -> None:
        """One that is slow is not dead."""
        slow, other = self.process(), self.process()
        self.commit(slow)
        for look in range(5 * MAX_SILENT_LOOKS):
            if look % (MAX_SILENT_LOOKS - 1) == 0:
                self.wait(slow.beat())
            self.assertEqual(self.wait(other.take_over()), 0)
