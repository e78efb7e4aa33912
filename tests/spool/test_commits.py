"""New messages: a commit survives, nothing less is one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from mta.interfaces import IQueue, ISpool
from mta.mail import NULL_PATH, Body, Envelope, Mailbox, Notify, Recipient
from mta.queued import (
    IContent,
    IDraft,
    Message,
    Progress,
)
from mta.spool.committer import COMPANY
from mta.spool.content import MemoryContent
from tests.fakes import FakeSpool
from tests.spool.cases import BOB, LARGE, SpoolTestCase, envelope


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
            (ISpool, FakeSpool()),
            (IQueue, FakeSpool()),
            (IDraft, spool.draft()),
            (IDraft, FakeSpool().draft()),
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
        self.assertEqual(message.content, MemoryContent(b"Subject: x\r\n\r\n\xe9\r\n", False))
        self.assertEqual(message.progress, (Progress(Recipient(BOB)),))
        self.assertAlmostEqual(message.arrived, self.now(), places=3)
        self.assertFalse(message.recovered)

    def test_the_message_has_the_id_of_its_draft(self) -> None:
        """The Received: field can name the id before the content is complete."""
        spool = self.process()
        draft = spool.draft()
        self.assertEqual(self.wait(spool.commit(draft, envelope())).id, draft.id)

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
            commits.append(spool.commit(draft, envelope(*to)))
        waiting = [self.started(commit) for commit in commits]
        free.set()
        messages = [self.wait(deferred) for deferred in waiting]
        self.wait(spool.release({message.id: 0.0 for message in messages}))
        again = self.wait(self.process().lease_due(100))
        self.assertEqual([entry.envelope for entry in again], [m.envelope for m in messages])
        self.assertEqual([self.content(entry) for entry in again], [b"%d" % n for n in range(70)])

    def test_what_waits_shares_a_commit(self) -> None:
        """All that came while the committer was busy goes into one transaction."""
        spool = self.process()
        free = self.block(spool)
        waiting = [self.started(spool.commit(spool.draft(), envelope())) for _ in range(20)]
        statements: list[str] = []
        self.committers[spool]._connection.set_trace_callback(statements.append)
        free.set()
        for deferred in waiting:
            self.wait(deferred)
        self.assertLessEqual(statements.count("COMMIT"), 2)

    def test_company(self) -> None:
        """A message waits for a moment where another one is on its way, and no longer."""
        spool = self.process()
        for discarded in (False, True):
            other = spool.draft()
            if discarded:
                other.discard()
            message = self.started(spool.commit(spool.draft(), envelope()))
            self.clock.advance(0)
            handed_over = self.committers[spool]._timer is None
            self.assertIs(handed_over, discarded)
            self.clock.advance(COMPANY)
            self.wait(message)
            other.discard()

    def test_not_before_the_commit(self) -> None:
        """`commit` returns only when the transaction has ended."""
        spool = self.process()
        free = self.block(spool)
        deferred = self.started(spool.commit(spool.draft(), envelope()))
        self.assertNoResult(deferred)
        free.set()
        self.assertIsInstance(self.wait(deferred), Message)

    def test_durable_by_default(self) -> None:
        """SQLite syncs each commit."""
        connection = self.committers[self.process()]._connection
        self.assertEqual(connection.execute("PRAGMA synchronous").fetchone(), (2,))
        self.assertEqual(connection.execute("PRAGMA journal_mode").fetchone(), ("wal",))

    def test_nobody_else_may_read(self) -> None:
        """Folders and files are for their owner alone."""
        spool = self.process()
        self.commit(spool, LARGE)
        for path in (self.path, *self.path.rglob("*")):
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)

    def started(self, coroutine: Any) -> Any:
        """Start a coroutine; what waits for threads goes on in `wait`."""
        return Deferred.fromCoroutine(coroutine)
