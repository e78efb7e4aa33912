"""The log's line of an attempt."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Hop, Mailbox, Outcome, Reply, Status
from mta.metrics import NullMeter
from mta.queue.outcome_log import STEP, OutcomeLog
from mta.queued import Target
from mta.testing import message

ALICE = Mailbox("alice", "example.com")
TAKEN = Outcome(Status.DELIVERED, Reply(250, "2.0.0", ("Delivered to the mailbox",)))


class LineTests(SynchronousTestCase):
    """What a person reads of one recipient."""

    def line(self, hop: Hop, seconds: float, outcome: Outcome = TAKEN) -> str:
        """The line of an attempt, that many seconds after the message came."""
        sent = message("1K197AVEABQBK", to=[ALICE], arrived=1000.0)
        with capturedLogs() as events:
            target = Target(0, ALICE, hop)
            OutcomeLog(Clock(), NullMeter()).tell(sent, [(target, outcome)], 1000.0 + seconds)
        [event] = events
        self.assertEqual((event["hop"], event["delay"]), (str(hop), seconds))
        return formatEvent(event)

    def test_the_folder(self) -> None:
        """A Maildir is named as it lies on the disk."""
        for template in ("/var/mail/{domain}/{local}", "/var/mail/example.com/alice"):
            self.assertEqual(
                self.line(Hop(Agent.MAILDIR, template), 0.051),
                "1K197AVEABQBK delivered alice@example.com by maildir:/var/mail/example.com/alice:"
                " 250 2.0.0 Delivered to the mailbox",
            )

    def test_the_time(self) -> None:
        """It is told where it matters, in one unit."""
        for seconds, told in (
            (0.999, "mailbox"),
            (1.2, ", after 1 s"),
            (14.649, ", after 15 s"),
            (200.0, ", after 3 min"),
            (18000.0, ", after 5 h"),
            (432000.0, ", after 5 days"),
        ):
            line = self.line(Hop(Agent.SMTP, "mx.example.net", 25), seconds)
            self.assertTrue(line.endswith(told), line)
            self.assertIn(" by smtp://mx.example.net:25: 250 ", line)


class BesideTests(SynchronousTestCase):
    """Many lines, with other work in between."""

    def test_many(self) -> None:
        """They are written in steps, all of them, in order."""
        sent = message("1K197AVEABQBK", to=[ALICE])
        steps: list[int] = []

        async def in_steps(work: Iterator[None]) -> None:
            for _ in work:
                steps.append(len(events))

        log = OutcomeLog(Clock(), NullMeter(), in_steps)
        hop = Hop(Agent.SMTP, "mx.example.net", 25)
        for count, expected in ((STEP, []), (2 * STEP + 1, [STEP, 2 * STEP])):
            reports = [
                (Target(0, Mailbox(str(number), "example.com"), hop), TAKEN)
                for number in range(count)
            ]
            with capturedLogs() as events:
                self.successResultOf(
                    Deferred.fromCoroutine(log.tell_beside(sent, reports, sent.arrived))
                )
            self.assertEqual(steps, expected)
            addresses = [event["address"] for event in events]
            self.assertEqual(addresses, [f"{number}@example.com" for number in range(count)])
