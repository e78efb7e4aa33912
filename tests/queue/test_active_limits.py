"""Limits on the mail that is in memory at once."""

from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Envelope, Hop, Mailbox, Recipient
from mta.queue.active_limits import ActiveLimits
from mta.queued import Delivery, Message, Target
from mta.settings import KIB, MIB
from mta.spool.content import MemoryContent

A, B = Hop(Agent.MX, "a.example"), Hop(Agent.MX, "b.example")
RECIPIENT = Recipient(Mailbox("x", "a.example"))


def message(size: int = 100, sender: str = "s") -> Message:
    """A message with so many octets."""
    envelope = Envelope(Mailbox(sender, "s.example"), (RECIPIENT,))
    return Message(f"{sender}{size}", 0.0, envelope, MemoryContent(b"", bytes(size), True), ())


class ActiveLimitsTests(SynchronousTestCase):
    """Limits of a hundred messages with 64 KiB each."""

    def setUp(self) -> None:
        self.limits = ActiveLimits(100, 100 * 64 * KIB)

    def fill(self, hop: Hop, each: Message) -> int:
        """Give a hop messages until it is crowded; returns how many."""
        count = 0
        while not self.limits.is_full_for(each):
            self.limits.enter(each)
            if self.limits.is_crowded(hop, each):
                self.limits.leave(each)
                break
            self.limits.begin(Delivery(each, (Target(0, RECIPIENT.forward_path, hop),)))
            count += 1
        return count

    def test_shares(self) -> None:
        """One hop gets half of the room, the next one half of the rest."""
        self.assertEqual(50, self.fill(A, message()))
        self.assertEqual(25, self.fill(B, message()))
        self.assertEqual(25, self.limits.room)

    def test_octets(self) -> None:
        """Large messages count more than once, and no one hop fills the memory with them."""
        self.assertLess(self.fill(A, message(200 * KIB)), 18)
        self.assertFalse(self.limits.is_full_for(message(200 * KIB)))

    def test_in_pieces(self) -> None:
        """Of a very large message only a piece is in memory."""
        self.limits.enter(message(10 * MIB))
        self.assertFalse(self.limits.is_full_for(message(10 * MIB)))

    def test_emptied(self) -> None:
        """What has left counts no more."""
        delivery = Delivery(message(), (Target(0, RECIPIENT.forward_path, A),))
        self.limits.enter(delivery.message)
        self.limits.begin(delivery)
        self.limits.end(delivery)
        self.limits.leave(delivery.message)
        self.assertEqual(100, self.limits.room)
        self.assertEqual(50, self.fill(A, message()))
