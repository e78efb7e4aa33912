"""The mail of a hop, handed to one of its hosts after the other."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.delivery import per_host
from mta.delivery.per_host import MAX_KEPT, MAX_KEPT_TIME, PerHost, Suspects, most_telling
from mta.interfaces import IMailSource
from mta.mail import Envelope, Mailbox, Outcome, Recipient, Reply, Status
from mta.queued import Delivery
from mta.testing import FakeMailSource, delivery

T = TypeVar("T")

TAKEN = Outcome(Status.RELAYED, Reply(250, "2.0.0", ("taken",)), "mx1")
REFUSED = Outcome(Status.FAILED, Reply(550, "5.1.1", ("who?",)), "mx1")
LATER = Outcome(Status.DEFERRED, Reply(450, "4.2.0", ("later",)), "mx1", try_next_host=True)
DOWN = Outcome(Status.DEFERRED, Reply(451, "4.4.1", ("no connection",)))
LACKING = Outcome(Status.FAILED, Reply(553, "5.6.7", ("no SMTPUTF8",)), try_next_host=True)
BROKE = Outcome(Status.DEFERRED, Reply(451, "4.4.2", ("reset",)), "mx1", broke_in_content=True)


def mail(name: str, *local_parts: str) -> Delivery:
    """A message to those people."""
    recipients = tuple(Recipient(Mailbox(one, "peer.example")) for one in local_parts or ("bob",))
    envelope = Envelope(Mailbox("a", "us.example"), recipients)
    return delivery(id=name, content=b"x", envelope=envelope)


class PerHostTests(SynchronousTestCase):
    """A source between the sender of each connection and the queue."""

    def setUp(self) -> None:
        self.suspects = Suspects()
        self.clock = Clock()
        self.make(mail("M1", "bob", "carol"), mail("M2"), mail("M3"))

    def make(self, *deliveries: Delivery) -> None:
        self.source = FakeMailSource(*deliveries)
        self.mail = PerHost(self.source, self.suspects, self.clock.seconds)
        self.begin()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        result: T = self.successResultOf(Deferred.fromCoroutine(coroutine))
        return result

    def begin(self) -> bool:
        return self.wait(self.mail.begin_connection())

    def take(self) -> Delivery:
        taken = self.wait(self.mail.next())
        assert taken is not None
        return taken

    def test_interface(self) -> None:
        """It is a source."""
        self.assertTrue(verifyObject(IMailSource, self.mail))

    def test_what_is_settled_passes_at_once(self) -> None:
        """In the words of the host."""
        self.mail.report(self.take(), [TAKEN, REFUSED])
        self.assertEqual(self.source.outcomes, {"M1": (TAKEN, REFUSED)})
        self.assertTrue(self.mail.progress)
        self.assertTrue(self.mail.is_done)

    def test_the_next_host_gets_the_rest(self) -> None:
        """Only the targets that are open; the delivery is settled as a whole."""
        self.mail.report(self.take(), [TAKEN, LATER])
        self.assertEqual(self.source.outcomes, {})
        self.assertFalse(self.mail.is_done)
        self.assertTrue(self.mail.is_same_at_all_addresses)
        self.assertFalse(self.wait(self.mail.wait()))
        self.mail.leave_host()
        self.assertTrue(self.begin())
        again = self.take()
        self.assertEqual([str(target.address) for target in again.targets], ["carol@peer.example"])
        self.mail.report(again, [REFUSED])
        self.assertEqual(self.source.outcomes, {"M1": (TAKEN, REFUSED)})

    def test_new_mail_is_left_to_a_host_that_takes_it(self) -> None:
        """The next one gets only what the first one put off."""
        self.mail.report(self.take(), [TAKEN, LATER])
        self.mail.report(self.take(), [TAKEN])
        self.mail.leave_host()
        self.assertTrue(self.begin())
        self.mail.report(self.take(), [LATER])
        self.assertIsNone(self.wait(self.mail.next()))
        self.mail.finish(None)
        self.assertEqual(self.source.outcomes["M1"], (TAKEN, LATER))
        self.assertEqual(len(self.source.waiting), 1)

    def test_what_is_kept_does_not_wait_for_long(self) -> None:
        """After a while, or when it is much, the host gets no new mail, and the next one has it."""
        self.mail.report(self.take(), [LATER, LATER])
        self.mail.report(self.take(), [TAKEN])
        self.clock.advance(MAX_KEPT_TIME)
        self.assertIsNone(self.wait(self.mail.next()))
        self.assertEqual(len(self.source.waiting), 1)
        self.make(*(mail(f"M{number}") for number in range(200)))
        for _ in range(MAX_KEPT):
            self.mail.report(self.take(), [LATER])
        self.assertIsNone(self.wait(self.mail.next()))

    def test_no_host_is_dialled_for_nothing(self) -> None:
        """The first one is dialled for mail that waits; others only if some was taken or waits."""
        self.make(mail("M1"))
        self.mail.leave_host()
        self.assertTrue(self.begin())
        self.mail.report(self.take(), [TAKEN])
        self.assertFalse(self.begin())

    def test_what_comes_back(self) -> None:
        """Mail that no host has said anything to is left to another visit; the rest is kept."""
        self.mail.return_unsent(self.take())
        self.assertEqual(self.source.returned, ["M1"])
        taken = self.take()
        self.mail.report(taken, [LATER])
        self.begin()
        self.mail.return_unsent(self.take())
        self.assertEqual(self.source.returned, ["M1"])
        self.mail.finish(DOWN)
        self.assertEqual(self.source.outcomes, {"M2": (LATER,)})
        self.assertRaises(ValueError, self.mail.return_unsent, taken)

    def test_what_nobody_took(self) -> None:
        """It is settled with the most telling word; what nobody was asked about goes back."""
        self.mail.report(self.take(), [LACKING, LATER])
        self.take()
        self.mail.finish(None)
        self.assertEqual(self.source.outcomes, {"M1": (LACKING, LATER)})
        self.assertEqual(self.source.returned, ["M2"])

    def test_most_telling(self) -> None:
        """Hope before none, a host's own word before ours, the last of equals."""
        other = replace(LATER, remote="mx2")
        for outcomes, expected in (
            ([LACKING, DOWN], DOWN),
            ([DOWN, LACKING], DOWN),
            ([LATER, DOWN], LATER),
            ([LATER, other], other),
            ([None, LACKING, None], LACKING),
        ):
            self.assertIs(most_telling(outcomes), expected)

    # --- suspects

    def test_a_suspect_goes_alone(self) -> None:
        """When all before it have come back, and before all that are behind it."""
        self.suspects.learn(mail("M2"), [BROKE])
        first = self.take()
        self.assertIsNone(self.wait(self.mail.next()))
        self.mail.report(first, [TAKEN, TAKEN])
        self.assertTrue(self.wait(self.mail.wait()))
        suspect = self.take()
        self.assertEqual(suspect.message.id, "M2")
        self.assertIsNone(self.wait(self.mail.next()))
        self.mail.report(suspect, [TAKEN])
        self.assertNotIn(suspect, self.suspects)
        self.assertEqual(self.take().message.id, "M3")

    def test_whose_fault_it_is(self) -> None:
        """The content's, where a suspect was alone on a connection that broke; else the host's."""
        self.make(mail("M1"), mail("M1"))
        self.mail.report(self.take(), [BROKE])
        self.assertFalse(self.mail.is_content_at_fault)
        self.mail.report(self.take(), [BROKE])
        self.assertTrue(self.mail.is_content_at_fault)

    def test_suspects_are_forgotten(self) -> None:
        """Senders choose how many there are."""
        self.patch(per_host, "MAX_SUSPECTS", 2)
        deliveries = [mail(name) for name in ("M1", "M2", "M3")]
        for each in deliveries:
            self.suspects.learn(each, [BROKE])
        self.assertEqual([each in self.suspects for each in deliveries], [False, True, True])
