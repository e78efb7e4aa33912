"""When mail is tried again, warned of, and given up (RFC 5321 section 4.5.4.1)."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Hop
from mta.queue.schedule import Schedule
from mta.settings import DAY, HOUR, Peer, Queue

MX = Hop(Agent.MX, "rcpt.example")
OFFICE = Hop(Agent.HOLD, "office")
ARRIVED = 1_000_000.0


def schedule(random: float = 0.5, **peer: float) -> Schedule:
    """The default settings; a `random` of 0.5 means no jitter."""
    return Schedule(Queue(), {"office": Peer("office", **peer)}, lambda: random)


class RetryTests(SynchronousTestCase):
    """The next attempt."""

    def test_delays(self) -> None:
        """Each attempt has its delay, and the last delay repeats."""
        due = [
            schedule().retry_due(MX, n, ARRIVED, ARRIVED, warned=True) - ARRIVED
            for n in range(1, 10)
        ]
        self.assertEqual([60, 300, 900, 1800, HOUR, 2 * HOUR, 4 * HOUR, 4 * HOUR, 4 * HOUR], due)

    def test_jitter(self) -> None:
        """Chance moves an attempt by a tenth of its delay either way."""
        self.assertEqual(54, schedule(0.0).retry_due(MX, 1, 0, 0, warned=False))
        self.assertEqual(66, schedule(1.0).retry_due(MX, 1, 0, 0, warned=False))

    def test_last_chance(self) -> None:
        """The last attempt comes when the time is up, not after it."""
        now = ARRIVED + 5 * DAY - 10
        due = schedule().retry_due(MX, 20, ARRIVED, now, warned=True)
        self.assertEqual(ARRIVED + 5 * DAY, due)

    def test_in_time_for_the_warning(self) -> None:
        """The sender is warned when it is time, and not at some later attempt."""
        now = ARRIVED + 3.5 * HOUR
        for warned, due in [(False, 4 * HOUR), (True, 7.5 * HOUR)]:
            self.assertEqual(
                ARRIVED + due, schedule().retry_due(MX, 7, ARRIVED, now, warned=warned)
            )
            resumed = schedule(0.0).resume_due(MX, HOUR, ARRIVED, now, warned=warned)
            self.assertEqual(min(ARRIVED + due, now + HOUR), resumed)

    def test_untried(self) -> None:
        """What had to wait is tried when its time is over, a little later by chance."""
        for chance, due in [(0.0, 100), (0.5, 105)]:
            self.assertEqual(due, schedule(chance).resume_due(MX, 100, 0, 0, warned=False))
        now = ARRIVED + 5 * DAY - 10
        self.assertEqual(now + 10, schedule().resume_due(MX, 100, ARRIVED, now, warned=True))

    @given(st.integers(0, 10**6), st.floats(0, 10 * DAY), st.floats(0, 0.999), st.booleans())
    def test_bounds(self, attempts: int, age: float, random: float, warned: bool) -> None:
        """No attempt is later than the end, nor further away than the longest delay."""
        now = ARRIVED + age
        due = schedule(random).retry_due(MX, attempts, ARRIVED, now, warned=warned)
        self.assertLessEqual(due, ARRIVED + 5 * DAY)
        self.assertLessEqual(due, ARRIVED + age + 1.1 * 4 * HOUR)


class AgeTests(SynchronousTestCase):
    """Warning and giving up go by age."""

    def test_expiry(self) -> None:
        """Mail is given up after five days, held mail after its peer's time."""
        self.assertEqual(ARRIVED + 5 * DAY, schedule().expires(MX, ARRIVED))
        self.assertEqual(ARRIVED + DAY, schedule(hold_for=DAY).expires(OFFICE, ARRIVED))

    def test_unknown_peer(self) -> None:
        """Mail held for a peer that is no longer configured has the usual time."""
        self.assertEqual(20 * DAY, schedule().expires(Hop(Agent.HOLD, "gone"), 0))

    def test_warning(self) -> None:
        """A warning is due from its age on."""
        self.assertFalse(schedule().must_warn(MX, ARRIVED, ARRIVED + 4 * HOUR - 1))
        self.assertTrue(schedule().must_warn(MX, ARRIVED, ARRIVED + 4 * HOUR))

    def test_no_warning(self) -> None:
        """Nought means no warning, and is the default of held mail."""
        self.assertFalse(schedule().must_warn(OFFICE, ARRIVED, ARRIVED + DAY))
        never = Schedule(Queue(warn_after=0), {}, lambda: 0.5)
        self.assertFalse(never.must_warn(MX, ARRIVED, ARRIVED + DAY))

    def test_held_mail(self) -> None:
        """Held mail is looked at to warn its sender, then to give it up."""
        warning = schedule(warn_after=HOUR)
        self.assertEqual(ARRIVED + HOUR, warning.held_due(OFFICE, ARRIVED, warned=False))
        self.assertEqual(ARRIVED + 20 * DAY, warning.held_due(OFFICE, ARRIVED, warned=True))
        self.assertEqual(ARRIVED + 20 * DAY, schedule().held_due(OFFICE, ARRIVED, warned=False))
