"""A queue in which senders go one after the other."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.queue.fair_queue import FairQueue


class FairQueueTests(SynchronousTestCase):
    """Items in line, by key."""

    def test_round_robin(self) -> None:
        """One item of each key after the other; the items of one keep their order."""
        queue = FairQueue[str]()
        for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
            queue.put(item[0], item)
        self.assertEqual(["a1", "b1", "c1", "a2", "c2", "a3"], queue.take_all())
        self.assertRaises(IndexError, queue.take)

    def test_put_back(self) -> None:
        """What was taken in vain is next."""
        queue = FairQueue[str]()
        queue.put("a", "a1")
        queue.put_back("b", ["b1"])
        self.assertEqual(["b1", "a1"], queue.take_all())

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers())))
    def test_nothing_lost(self, items: list[tuple[int, int]]) -> None:
        """Each item comes out once, behind those of its key that came before it."""
        queue = FairQueue[tuple[int, int]]()
        for item in items:
            queue.put(item[0], item)
        self.assertEqual(len(items), len(queue))
        taken = queue.take_all()
        for key in range(4):
            own = [item for item in items if item[0] == key]
            self.assertEqual(own, [item for item in taken if item[0] == key])

    def test_one_key(self) -> None:
        """It is known whether all that waits is of one key."""
        queue = FairQueue[str]()
        self.assertFalse(queue.has_only("a"))
        queue.put("a", "a1")
        self.assertTrue(queue.has_only("a"))
        queue.put("b", "b1")
        self.assertFalse(queue.has_only("a"))
