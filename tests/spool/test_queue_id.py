"""Names of queued messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.spool import queue_id
from tests.spool.cases import EPOCH


class QueueIdTests(SynchronousTestCase):
    """Names of queued messages."""

    @given(st.integers(0, 2**63 - 1))
    def test_round_trip(self, number: int) -> None:
        """What people see names the same message."""
        self.assertEqual(queue_id.decode(queue_id.encode(number)), number)

    @given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
    def test_text_sorts_as_numbers(self, one: int, other: int) -> None:
        """A list sorted by id is sorted by time."""
        self.assertEqual(one < other, queue_id.encode(one) < queue_id.encode(other))

    def test_what_is_no_queue_id(self) -> None:
        """Text that names nothing is refused, however near it comes."""
        good = queue_id.encode(2**62 + 31)
        for text in (
            "",
            good[1:],
            good + "0",
            good.lower(),
            "I" * 13,
            "8" + good[1:],
            "0_" + good[2:],
        ):
            self.assertRaises(ValueError, queue_id.decode, text)

    def test_clock_steps_back(self) -> None:
        """Ids keep growing, whatever the clock does."""
        times = iter([EPOCH, EPOCH, EPOCH - 100])
        ids = queue_id.QueueIds(lambda: next(times))
        made = [ids.next() for _ in range(3)]
        self.assertEqual(made, sorted(set(made)))

    def test_arrival(self) -> None:
        """The time of arrival is in the id."""
        self.assertEqual(queue_id.arrival(queue_id.QueueIds(lambda: EPOCH).next()), EPOCH)
        self.assertLessEqual(queue_id.earliest(EPOCH), queue_id.QueueIds(lambda: EPOCH).next())
