"""New messages: a commit survives, nothing less is one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from mta.interfaces import IPreviews, IQueue, ISpool
from mta.mail import NULL_PATH, Body, Envelope, Mailbox, Notify, Recipient
from mta.queued import (
    Filter,
    IContent,
    IDraft,
    Message,
    Progress,
)
from mta.session import UNKNOWN_ORIGIN, Origin
from mta.spool.commits import MAX_ARRIVAL
from mta.spool.committer import GATHER_DELAY
from mta.spool.content import MemoryContent
from mta.spool.jobs import acting
from mta.testing import MemorySpool
from tests.spool.cases import BOB, HEADER, LARGE, CommitMeter, SpoolTestCase, envelope

ORIGIN = Origin(
    "192.0.2.1", "client.example", 4711, "c.example", "ESMTPSA", "TLSv1.3", "AES", "al", "smtp", "p"
)


class InterfaceTests(SpoolTestCase):
    """Every implementation keeps its promise of form."""

    def test_interfaces(self) -> None:
        """Spools, queues, tools, drafts and content are what they say."""
        spool = self.process()
        small, large = self.commit(spool), self.commit(spool, LARGE)
        self.wait(spool.release({small.id: 0.0}))
        (again,) = self.wait(spool.lease_due(1))
        for interface, implementation in [
            (ISpool, spool),
            (IQueue, spool),
            (IPreviews, spool),
            (ISpool, MemorySpool()),
            (IPreviews, MemorySpool()),
            (IQueue, MemorySpool()),
            (IDraft, spool.draft()),
            (IDraft, MemorySpool().draft()),
            (IContent, small.content),
            (IContent, large.content),
            (IContent, again.content),
        ]:
            verifyObject(interface, implementation)


class CommitTests(SpoolTestCase):
    """A commit survives; nothing less is a commit."""

    def test_first_delivery_needs_no_read(self) -> None:
        """What `commit` returns has the content in memory."""
        message = self.commit(self.process(), b"Subject: x\r\n\r\n\xe9\r\n")
        self.assertEqual(message.content, MemoryContent(b"", b"Subject: x\r\n\r\n\xe9\r\n", False))
        self.assertEqual(message.progress, (Progress(Recipient(BOB)),))
        self.assertAlmostEqual(message.arrived, self.now(), places=3)
        self.assertFalse(message.recovered)

    def test_the_message_has_the_id_of_its_draft(self) -> None:
        """The Received: field can name the id before the content is complete."""
        spool = self.process()
        draft = spool.draft()
        self.assertEqual(
            self.wait(spool.commit(draft, envelope(), b"", UNKNOWN_ORIGIN)).id, draft.id
        )

    def test_the_header_section_apart(self) -> None:
        """It is given at the commit, and read alone or before the body, wherever that is."""
        spool = self.process()
        for body in (b"", b"body\xff", LARGE):
            draft = spool.draft()
            self.wait(draft.write(body))
            message = self.wait(spool.commit(draft, envelope(), HEADER, ORIGIN))
            self.wait(spool.release({message.id: 0.0}))
            (again,) = self.wait(spool.lease_due(1))
            for each in (message, again):
                self.assertEqual(self.halves(each), (HEADER, body))
                self.assertEqual(self.content(each), HEADER + body)
                self.assertEqual(each.content.size, len(HEADER + body))
                self.assertEqual(each.content.is_ascii, body.isascii())
                self.assertEqual(each.origin, ORIGIN)
            self.wait(spool.remove([message.id], 0.0))
        self.assertEqual(self.files(), [])

    def test_a_header_section_of_other_octets(self) -> None:
        """The message is no ASCII, whatever its body."""
        spool = self.process()
        message = self.wait(
            spool.commit(spool.draft(), envelope(), "Subject: ü\r\n".encode(), UNKNOWN_ORIGIN)
        )
        self.assertFalse(message.content.is_ascii)

    def test_a_reason_to_keep_it(self) -> None:
        """What is on hold from its beginning waits for the operator, and says why."""
        spool = self.process()
        message = self.wait(
            spool.commit(spool.draft(), envelope(), HEADER, ORIGIN, "it looks like spam")
        )
        self.assertEqual(message.on_hold, "it looks like spam")
        self.assertEqual(self.wait(spool.lease_due(9)), [])
        (entry,) = self.tools().find(Filter())
        self.assertEqual((entry.state, entry.on_hold), ("held", True))
        self.assertEqual(entry.reason, "it looks like spam")
        self.assertEqual(self.tools().release([message.id]), [message.id])
        (again,) = self.wait(spool.lease_due(9))
        self.assertEqual(again.id, message.id)

    def test_everything_comes_back(self) -> None:
        """A restart changes nothing of envelope and content."""
        wanted = Envelope(
            NULL_PATH,
            (
                Recipient(Mailbox('a "b"', "[192.0.2.1]")),
                Recipient(
                    Mailbox("jürgen", "bücher.example"),
                    frozenset({Notify.SUCCESS, Notify.DELAY}),
                    "rfc822;other@example.net",
                ),
                Recipient(Mailbox("Postmaster")),
            ),
            Body.BINARY,
            smtputf8=True,
            ret="HDRS",
            envid="an id",
            require_tls=True,
            outside=True,
        )
        data = bytes(range(256))
        spool = self.process()
        message = self.commit(spool, data, wanted)
        self.wait(spool.release({message.id: 0.0}))
        (again,) = self.wait(self.process().lease_due(10))
        self.assertEqual(again, replace(message, content=again.content))
        self.assertEqual(self.content(again), data)
        self.assertEqual((again.content.size, again.content.is_ascii), (256, False))

    def test_many_recipients_and_messages_in_one_commit(self) -> None:
        """Statements for many rows keep the rows apart."""
        spool = self.process()
        free = self.block(spool)
        drafts = [spool.draft() for _ in range(70)]
        commits = []
        for place, draft in enumerate(drafts):
            self.wait(draft.write(b"%d" % place))
            to = [Mailbox(f"r{n}", f"d{place}.example") for n in range(place % 3 * 40 + 1)]
            commits.append(spool.commit(draft, envelope(*to), b"", UNKNOWN_ORIGIN))
        waiting = [self.started(commit) for commit in commits]
        free.set()
        messages = [self.wait(deferred) for deferred in waiting]
        self.wait(spool.release({message.id: 0.0 for message in messages}))
        again = self.wait(self.process().lease_due(100))
        self.assertEqual([entry.envelope for entry in again], [m.envelope for m in messages])
        self.assertEqual([self.content(entry) for entry in again], [b"%d" % n for n in range(70)])

    def test_what_waits_shares_a_commit(self) -> None:
        """All that came while the committer was busy goes into one transaction."""
        meter = CommitMeter()
        spool = self.restartable(meter)
        free = self.block(spool)
        waiting = [
            self.started(spool.commit(spool.draft(), envelope(), b"", UNKNOWN_ORIGIN))
            for _ in range(20)
        ]
        free.set()
        for deferred in waiting:
            self.wait(deferred)
        self.assertEqual(meter.counted, [1, 20])
        self.wait(spool.stop())

    def test_another_one_on_its_way(self) -> None:
        """A message waits for a moment for one that arrives, and they share a commit."""
        meter = CommitMeter()
        spool = self.restartable(meter)
        first, second = spool.draft(), spool.draft()
        for deferred in [
            self.started(spool.commit(each, envelope(), b"", UNKNOWN_ORIGIN))
            for each in (first, second)
        ]:
            self.wait(deferred)
        self.assertEqual(meter.counted, [2])
        self.wait(spool.stop())

    def test_none_on_its_way(self) -> None:
        """It waits no longer than that moment; and not at all where the other is discarded."""
        spool = self.process()
        for discarded in (False, True):
            other = spool.draft()
            if discarded:
                other.discard()
            timers = len(self.clock.getDelayedCalls())
            message = self.started(spool.commit(spool.draft(), envelope(), b"", UNKNOWN_ORIGIN))
            self.clock.advance(0)
            self.assertEqual(len(self.clock.getDelayedCalls()) - timers, not discarded)
            self.clock.advance(GATHER_DELAY)
            self.assertEqual(len(self.clock.getDelayedCalls()), timers)
            self.wait(message)
            other.discard()

    def test_one_that_is_slow(self) -> None:
        """It is not waited for: a client may say an octet a second, or nothing."""
        spool = self.process()
        spool.draft()
        self.clock.advance(2 * MAX_ARRIVAL)
        timers = len(self.clock.getDelayedCalls())
        message = self.started(spool.commit(spool.draft(), envelope(), b"", UNKNOWN_ORIGIN))
        self.assertEqual(len(self.clock.getDelayedCalls()), timers)
        self.wait(message)

    def test_not_before_the_commit(self) -> None:
        """`commit` returns only when the transaction has ended."""
        spool = self.process()
        free = self.block(spool)
        deferred = self.started(spool.commit(spool.draft(), envelope(), b"", UNKNOWN_ORIGIN))
        self.assertNoResult(deferred)
        free.set()
        self.assertIsInstance(self.wait(deferred), Message)

    def test_durable_by_default(self) -> None:
        """SQLite syncs each commit."""
        committer = self.committers[self.process()]
        for pragma, value in (("synchronous", 2), ("journal_mode", "wal")):
            job = acting(
                lambda connection, pragma: [*connection.execute(pragma)], pragma=f"PRAGMA {pragma}"
            )
            self.assertEqual(self.wait(committer.submit(job)), [(value,)])

    def test_nobody_else_may_read(self) -> None:
        """Folders and files are for their owner alone."""
        spool = self.process()
        self.commit(spool, LARGE)
        for path in (self.path, *self.path.rglob("*")):
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)

    def started(self, coroutine: Any) -> Any:
        """Start a coroutine; what waits for threads goes on in `wait`."""
        return Deferred.fromCoroutine(coroutine)
