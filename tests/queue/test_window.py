"""How much is in memory at once, and who waits behind whom."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Envelope, Hop, Mailbox, Recipient
from mta.queue import window
from mta.queue.turns import Turns
from mta.queue.window import Surplus, Window
from mta.queued import Delivery, Message, Target
from mta.settings import KIB, MIB
from mta.spool.content import MemoryContent

A, B = Hop(Agent.MX, "a.example"), Hop(Agent.MX, "b.example")
RECIPIENT = Recipient(Mailbox("x", "a.example"))


def message(size: int = 100, sender: str = "s") -> Message:
    """A message with so many octets."""
    envelope = Envelope(Mailbox(sender, "s.example"), (RECIPIENT,))
    return Message(f"{sender}{size}", 0.0, envelope, MemoryContent(b"", bytes(size), True), ())


class TurnsTests(SynchronousTestCase):
    """Items in line, by key."""

    def test_in_turn(self) -> None:
        """Keys take turns; the items of one keep their order."""
        turns = Turns[str]()
        for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
            turns.put(item[0], item)
        self.assertEqual(["a1", "b1", "c1", "a2", "c2", "a3"], turns.take_all())
        self.assertRaises(IndexError, turns.take)

    def test_put_back(self) -> None:
        """What was taken in vain is next."""
        turns = Turns[str]()
        turns.put("a", "a1")
        turns.put_back("b", ["b1"])
        self.assertEqual(["b1", "a1"], turns.take_all())

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers())))
    def test_nothing_lost(self, items: list[tuple[int, int]]) -> None:
        """Each item comes out once, behind those of its key that came before it."""
        turns = Turns[tuple[int, int]]()
        for item in items:
            turns.put(item[0], item)
        self.assertEqual(len(items), len(turns))
        taken = turns.take_all()
        for key in range(4):
            own = [item for item in items if item[0] == key]
            self.assertEqual(own, [item for item in taken if item[0] == key])


class WindowTests(SynchronousTestCase):
    """A window of a hundred messages with 64 KiB each."""

    def setUp(self) -> None:
        self.window = Window(100, 100 * 64 * KIB)

    def fill(self, hop: Hop, each: Message) -> int:
        """Give a hop messages until it is crowded; returns how many."""
        count = 0
        while not self.window.is_full_for(each):
            self.window.enter(each)
            if self.window.is_crowded(hop, each):
                self.window.leave(each)
                break
            self.window.begin(Delivery(each, (Target(0, RECIPIENT.forward_path, hop),)))
            count += 1
        return count

    def test_shares(self) -> None:
        """One hop gets half of the room, the next one half of the rest."""
        self.assertEqual(50, self.fill(A, message()))
        self.assertEqual(25, self.fill(B, message()))
        self.assertEqual(25, self.window.room)

    def test_octets(self) -> None:
        """Large messages count more than once, and no one hop fills the memory with them."""
        self.assertLess(self.fill(A, message(200 * KIB)), 18)
        self.assertFalse(self.window.is_full_for(message(200 * KIB)))

    def test_in_pieces(self) -> None:
        """Of a very large message only a piece is in memory."""
        self.window.enter(message(10 * MIB))
        self.assertFalse(self.window.is_full_for(message(10 * MIB)))

    def test_emptied(self) -> None:
        """What has left counts no more."""
        delivery = Delivery(message(), (Target(0, RECIPIENT.forward_path, A),))
        self.window.enter(delivery.message)
        self.window.begin(delivery)
        self.window.end(delivery)
        self.window.leave(delivery.message)
        self.assertEqual(100, self.window.room)
        self.assertEqual(50, self.fill(A, message()))


class SurplusTests(SynchronousTestCase):
    """Which messages wait in the spool for which hop."""

    def test_bound(self) -> None:
        """Only so many are remembered."""
        self.patch(window, "MAX_REMEMBERED", 2)
        surplus = Surplus()
        for sender in "abc":
            surplus.put(A, message(sender=sender))
        self.assertEqual(["a100", "b100"], surplus.take(A, 5))
        surplus.put(A, message(sender="d"))
        surplus.forget(A)
        self.assertEqual([], surplus.take(A, 5))
