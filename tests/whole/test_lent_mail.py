"""Mail passed through by a process without the link: the same answers, and each message once."""

from __future__ import annotations

from itertools import count

from twisted.internet.testing import StringTransport

from mta.mail import Reply
from tests.lending import LendingCase
from tests.passing import BODY, GTUBE
from tests.whole import test_pass_through
from tests.whole.test_pass_through import DEFERRED, LARGE


class LentAnswerTests(LendingCase, test_pass_through.AnswerTests):
    """The answers of the office, as senders of the other process hear them."""


class LentHostileOfficeTests(LendingCase, test_pass_through.HostileOfficeTests):
    """An office that wants to do harm, through another process."""


class LentWayTests(LendingCase, test_pass_through.WayTests):
    """What is passed through, and what takes the ordinary way."""

    def kept_at_once(self) -> None:
        """Send a message, which is ours when the other process has said that it has no link."""
        origin = self.origin()
        origin.send("bob")
        self.lender.pipes.carry_all()
        self.assertIn("queued as", origin.replies[0])


class BetweenTests(LendingCase):
    """What the two processes say to each other."""

    def test_nothing_listens(self) -> None:
        """The message is ours at once, and goes out by the spool."""
        self.lender.pipes.refuses = True
        origin = self.origin()
        origin.send("bob")
        self.assertIn("queued as", origin.replies[0])
        self.carry()
        self.assertEqual((self.kept, self.office.bodies), ([], [BODY]))

    def test_too_large(self) -> None:
        """What can't be lent is committed."""
        origin = self.origin()
        origin.send("bob", body=LARGE)
        self.assertIn("queued as", origin.replies[0])
        self.carry()
        self.assertEqual((self.kept, self.office.bodies), ([], [LARGE]))

    def test_no_link_there(self) -> None:
        """The other process has lost it."""
        self.office.dialler.refuses = True
        self.cut()
        origin = self.origin()
        origin.send("bob")
        self.carry()
        self.assertIn("queued as", origin.replies[0])
        self.assertEqual((len(self.kept), self.active), (1, (0, 0)))

    def test_the_sender_is_answered_while_it_waits_in_line(self) -> None:
        """After a minute the other process knows that nobody waits."""
        origin = self.origin()
        origin.send("bob")
        self.lender.pipes.carry()
        self.provider.clock.advance(60)
        self.assertIn("queued as", origin.replies[0])
        self.lender.pipes.carry()
        self.carry()
        self.assertEqual((self.kept, self.office.bodies), ([], [BODY]))

    def test_a_process_that_stands_still(self) -> None:
        """After a minute the message is ours; after ten it is free for others."""
        origin = self.origin()
        origin.send("bob")
        self.lender.pipes.wires[0].is_dead = True
        self.provider.clock.advance(60)
        self.assertIn("queued as", origin.replies[0])
        self.assertEqual(self.active, (0, 1))
        self.advance(540)
        self.advance(1)
        self.assertEqual(self.active, (0, 0))
        self.assertEqual((self.kept, self.office.bodies), ([], [BODY]))

    def test_the_lender_dies(self) -> None:
        """What is not on its way is not sent: its sender comes again."""
        origin = self.origin()
        self.wires[0].is_dead = True
        origin.send("bob")
        origin.send("bob")
        self.lender.pipes.carry_all()
        self.lender.pipes.cut()
        self.wires[0].is_dead = False
        source = self.provider.runner._active.held_sources.at_once("office")
        assert source is not None
        self.assertFalse(source._ready)

    def test_what_is_no_message(self) -> None:
        """The other process hears that nothing was tried."""
        for octets in (b"", b"{}", b'["office", []]\n', b'["office", [[0, "a", "b", []]]]\n{}\n'):
            wire = self.broken(octets)
            self.assertTrue(wire)

    def broken(self, octets: bytes) -> bool:
        """Say something to the borrower; returns whether it closed the connection."""
        borrower = self.lender.pipes.borrower.buildProtocol(None)
        transport = StringTransport()
        borrower.makeConnection(transport)
        borrower.dataReceived(len(octets).to_bytes(4, "big") + octets)
        return bool(transport.disconnecting) and transport.value()[4:] == b"[]"


class CutTests(LendingCase):
    """The connection between the processes breaks at every octet."""

    def pass_one(self, left: int, **refusals: Reply) -> tuple[str, bool]:
        """Break it after so many octets; the code that the sender heard, and whether it broke."""
        self.cut()
        self.make()
        self.inspector.refusals.update(refusals)
        self.lender.pipes.left = left
        origin = self.origin()
        origin.send("bob")
        self.carry()
        self.advance(2)
        (code,) = origin.codes
        return code, self.lender.pipes.wires[0].left == 0

    def test_everywhere(self) -> None:
        """Exactly one copy, and exactly one answer."""
        for left in count(1, 3):
            code, was_cut = self.pass_one(left)
            self.assertEqual(code, "250", left)
            self.assertEqual((self.kept, self.office.bodies), ([], [BODY]), left)
            self.assertEqual(self.active, (0, 0), left)
            if not was_cut:
                break
        self.assertGreater(left, 400)

    def test_deferred_everywhere(self) -> None:
        """The message is kept, once, and the office gets it when it takes it."""
        for left in range(1, 1000, 31):
            code, was_cut = self.pass_one(left, end=DEFERRED)
            self.assertEqual((code, len(self.kept), self.office.bodies), ("250", 1, []), left)
            if not was_cut:
                break

    def test_refused_everywhere(self) -> None:
        """A refusal is the sender's, or a notice of ours where it was not heard; never both."""
        for left in range(1, 1000, 7):
            code, was_cut = self.pass_one(left, end=GTUBE)
            self.assertEqual(len(self.provider.spool.notices), int(code == "250"), left)
            self.assertEqual(self.office.bodies, [], left)
            if not was_cut:
                break
        self.assertEqual(code, "550")
