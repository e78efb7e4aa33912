"""The spool: what ``docs/spool.rst`` promises, as long as nothing crashes."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import SkipTest

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.interfaces import IQueue, ISpool
from mta.mail import NULL_PATH, Body, Envelope, Mailbox, Notify, Recipient
from mta.queued import (
    Filter,
    HistoryEntry,
    IContent,
    IDraft,
    Message,
    Notice,
    Progress,
    Settlement,
    SpoolFull,
    State,
)
from mta.spool import database, leases, owners, queue_id, take_over, tools
from mta.spool.committer import COMPANY, Committer, Job
from mta.spool.content import SMALL, FileContent, MemoryContent
from mta.spool.database import SpoolDamaged
from mta.spool.folder import BALLAST, KEY_LENGTH, Folder, secret_key
from mta.spool.sqlite import SqliteSpool
from mta.spool.take_over import LOOKS
from mta.spool.tools import SpoolTools
from tests.fakes import DEADLINE, FakeSpool, ThreadClock
from tests.processes import temporary_folder

EPOCH = 1_700_000_000.0  # seconds: when the tests begin

ALICE = Mailbox("alice", "example.com")
BOB = Mailbox("bob", "example.org")
LARGE = b"0123456789abcde\n" * (SMALL // 16) + b"and more"


def envelope(*forward_paths: Mailbox, reverse_path: Mailbox = ALICE) -> Envelope:
    """From Alice to the mailboxes, or to Bob."""
    return Envelope(reverse_path, tuple(map(Recipient, forward_paths or (BOB,))))


def settlement(message: Message, due: float, **changes: Any) -> Settlement:
    """One attempt, after which every recipient is changed so."""
    progress = tuple(
        replace(entry, **{"domain": entry.recipient.forward_path.domain, **changes})
        for entry in message.progress
    )
    return Settlement(message.id, progress, due, message.attempts + 1, message.warned)


def done(message: Message) -> Settlement:
    """One attempt, after which nothing is left to do."""
    return settlement(message, 0.0, state=State.DONE)


class SpoolTestCase(SynchronousTestCase):
    """A folder, and processes on it: each `SqliteSpool` has locks of its own."""

    def setUp(self) -> None:
        self.clock = ThreadClock()
        self.path = Path(self.mktemp())
        self.folder = Folder(self.path)
        self.pool = ThreadPool(1, 4)
        self.pool.start()
        self.addCleanup(self.pool.stop)
        self.wait = self.clock.wait
        self.committers: dict[SqliteSpool, Committer] = {}

    def now(self) -> float:
        """Seconds since the epoch."""
        return EPOCH + self.clock.seconds()

    def process(self) -> SqliteSpool:
        """A process on the spool, stopped at the end."""
        spool = self.restartable()
        self.addCleanup(lambda: self.wait(spool.stop()))
        return spool

    def restartable(self) -> SqliteSpool:
        """A process that the test stops itself."""
        committer = Committer(self.folder, self.clock)
        spool = SqliteSpool(self.path, self.clock, self.pool, self.now, committer=committer)
        spool.start()
        self.committers[spool] = committer
        return spool

    def tools(self) -> SpoolTools:
        """The tools on the spool, closed at the end."""
        opened = SpoolTools(self.path, self.now)
        self.addCleanup(opened.close)
        return opened

    def commit(
        self, spool: SqliteSpool, content: bytes = b"content", wanted: Envelope | None = None
    ) -> Message:
        """Commit a message that arrives in pieces."""
        draft = spool.draft()
        for start in range(0, len(content), 65536):
            self.wait(draft.write(content[start : start + 65536]))
        return self.wait(spool.commit(draft, wanted or envelope()))

    def content(self, message: Message) -> bytes:
        """The whole content."""

        async def read() -> bytes:
            return b"".join([piece async for piece in message.content.pieces()])

        return self.wait(read())

    def files(self) -> list[str]:
        """What lies in the folders for large content."""
        return sorted(
            path.name
            for folder in ("content", "incoming")
            for path in (self.path / folder).iterdir()
        )

    def block(self, spool: SqliteSpool) -> threading.Event:
        """Keep the committer busy until the event is set."""
        busy, free = threading.Event(), threading.Event()

        def action(_: sqlite3.Connection) -> None:
            busy.set()
            free.wait(DEADLINE)

        self.committers[spool].submit(Job(action=action))
        self.assertTrue(busy.wait(DEADLINE))
        self.addCleanup(free.set)
        return free


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


class LargeContentTests(SpoolTestCase):
    """Content over 256 KiB has a file of its own."""

    def test_file(self) -> None:
        """It lies under the queue id, and comes back as it was."""
        spool = self.process()
        message = self.commit(spool, LARGE)
        self.assertIsInstance(message.content, FileContent)
        self.assertEqual(self.files(), [message.id])
        self.assertEqual(self.content(message), LARGE)
        self.assertEqual(self.content(message), LARGE)
        self.assertEqual((message.content.size, message.content.is_ascii), (len(LARGE), True))

    def test_after_restart(self) -> None:
        """The next process reads the same file."""
        spool = self.process()
        self.wait(spool.release({self.commit(spool, LARGE + b"\xff").id: 0.0}))
        (message,) = self.wait(self.process().lease_due(1))
        self.assertEqual(self.content(message), LARGE + b"\xff")
        self.assertFalse(message.content.is_ascii)

    def test_limit(self) -> None:
        """Up to the limit it stays in memory."""
        spool = self.process()
        self.assertIsInstance(self.commit(spool, LARGE[:SMALL]).content, MemoryContent)
        self.assertIsInstance(self.commit(spool, LARGE[: SMALL + 1]).content, FileContent)

    def test_memory_is_bounded(self) -> None:
        """While it arrives, all but two pieces are in the file."""
        draft = self.process().draft()
        for _ in range(64):
            self.wait(draft.write(b"x" * 65536))
        (incoming,) = (self.path / "incoming").iterdir()
        self.assertGreaterEqual(incoming.stat().st_size, 64 * 65536 - 2 * (SMALL + 65536))

    def test_memory_of_tiny_pieces(self) -> None:
        """Content in pieces of two octets takes no more memory than in large ones."""
        draft = self.process().draft()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(50_000):
            self.wait(draft.write(bytes(2)))
        self.assertLess(tracemalloc.get_traced_memory()[0], 2 * 100_000)
        self.assertEqual(self.wait(draft.finish()), bytes(100_000))

    def test_pieces_are_bounded(self) -> None:
        """Readers get it in portions."""
        message = self.commit(self.process(), LARGE * 3)

        async def sizes() -> list[int]:
            return [len(piece) async for piece in message.content.pieces()]

        self.assertLessEqual(max(self.wait(sizes())), SMALL)

    def test_removed_when_settled(self) -> None:
        """The file goes with its message."""
        spool = self.process()
        self.wait(spool.settle(done(self.commit(spool, LARGE))))
        self.assertEqual(self.files(), [])

    def test_discarded(self) -> None:
        """A draft that is given up leaves nothing, also in the middle of writing."""
        spool = self.process()
        draft = spool.draft()
        for _ in range(8):
            self.wait(draft.write(LARGE))
        draft.discard()
        self.assert_no_files()

    def test_disk_full(self) -> None:
        """SpoolFull, and nothing is left."""
        spool = self.process()

        def write(descriptor: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(os, "write", write)
        self.assertRaises(SpoolFull, self.commit, spool, LARGE)
        self.assert_nothing_left(spool)

    def test_sync_fails(self) -> None:
        """OSError, and nothing is left."""
        spool = self.process()

        def fsync(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(os, "fsync", fsync)
        error = self.assertRaises(OSError, self.commit, spool, LARGE)
        self.assertEqual(error.errno, errno.EIO)
        self.assert_nothing_left(spool)

    def test_database_fails(self) -> None:
        """A file that is already in place is removed with the rest."""
        spool = self.process()
        self.wait(
            self.committers[spool].submit(Job(action=lambda c: c.execute("DROP TABLE recipient")))
        )
        self.assertRaises(OSError, self.commit, spool, LARGE)
        self.assert_no_files()
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_removed_while_it_waits(self) -> None:
        """A reader of content that is gone gets an OSError."""
        spool = self.process()
        small, large = self.commit(spool), self.commit(spool, LARGE)
        self.wait(spool.release({small.id: 0.0, large.id: 0.0}))
        messages = self.wait(spool.lease_due(2))
        self.tools().delete([small.id, large.id])
        for message in messages:
            self.assertRaises(OSError, self.content, message)

    def assert_no_files(self) -> None:
        """What is being removed by threads goes in the end."""
        while self.files():
            self.clock.pump()

    def assert_nothing_left(self, spool: SqliteSpool) -> None:
        """No file, no row."""
        self.assert_no_files()
        self.assertEqual(list(self.tools().find(Filter())), [])


class TroubleTests(SpoolTestCase):
    """A disk or a database that fails."""

    def test_database_full(self) -> None:
        """The one that doesn't fit gets SpoolFull, the others in its batch go through."""
        spool = self.process()

        def limit(connection: sqlite3.Connection) -> None:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages + 4}")

        self.wait(self.committers[spool].submit(Job(action=limit)))
        free = self.block(spool)
        results: list[object] = []
        for content in (b"small", b"x" * 100_000, b"small too"):
            draft = spool.draft()
            self.wait(draft.write(content))
            Deferred.fromCoroutine(spool.commit(draft, envelope())).addBoth(results.append)
        free.set()
        while len(results) < 3:
            self.clock.pump()
        self.assertIsInstance(results[0], Message)
        self.assertIsInstance(results[1].value, SpoolFull)
        self.assertIsInstance(results[2], Message)
        self.assertEqual(len(list(self.tools().find(Filter()))), 2)

    def test_little_room(self) -> None:
        """No new mail while little is left, small or large; what is there is worked off."""
        spool = self.process()
        spool.reserve = 1000
        message = self.commit(spool)
        self.patch(Folder, "_free", lambda folder: 999)
        for content in (b"content", LARGE * 2):
            self.assertRaises(SpoolFull, self.commit, spool, content)
        blocked = self.block(spool)
        notice = Notice(envelope(), b"failed")
        settled = Deferred.fromCoroutine(spool.settle(replace(done(message), notices=(notice,))))
        refused = Deferred.fromCoroutine(spool.commit(spool.draft(), envelope()))
        blocked.set()
        self.assertRaises(SpoolFull, self.wait, refused)
        self.assertEqual(len(self.wait(settled)), 1)
        tools = SpoolTools(self.path, self.now, reserve=1000)
        self.addCleanup(tools.close)
        self.assertRaises(SpoolFull, tools.enqueue, envelope(), [b"content"])
        self.assertEqual(self.files(), [])

    def test_room_in_the_database(self) -> None:
        """What is free in the database counts: it does not grow by new mail."""
        spool = self.process()
        spool.reserve = 100_000
        self.wait(spool.settle(done(self.commit(spool, b"x" * 200_000))))
        self.patch(Folder, "_free", lambda folder: 0)
        self.commit(spool)

    def test_ballast(self) -> None:
        """Room is set aside where there is enough, and given up for what makes room."""
        spool = self.process()
        message = self.commit(spool)
        self.patch(Folder, "_free", lambda folder: BALLAST - 1)
        self.wait(spool.take_over())
        self.assertFalse(self.folder.ballast.exists())
        self.patch(Folder, "_free", lambda folder: BALLAST)
        for _ in range(2):
            self.wait(spool.take_over())
        self.assertEqual(self.folder.ballast.stat().st_blocks * 512, BALLAST)
        self.until_thrown(self.committers[spool])
        self.wait(spool.settle(done(message)))
        self.assertFalse(self.folder.ballast.exists())

    def test_ballast_and_tools(self) -> None:
        """So it is for the person in charge; and when there is none, the disk is full."""
        spool, tools = self.process(), self.tools()
        changes = (tools.hold, tools.release, tools.retry, tools.delete)
        for change in changes:
            message = self.commit(spool)
            self.wait(spool.release({message.id: self.now()}))
            if change == tools.release:
                tools.hold([message.id])
            self.wait(spool.take_over())
            restore = self.until_thrown(tools)
            self.assertEqual(change([message.id]), [message.id])
            self.assertFalse(self.folder.ballast.exists())
            restore()
        self.until_thrown(tools)
        self.assertRaises(SpoolFull, tools.delete, [message.id])

    def until_thrown(self, user: object) -> Callable[[], None]:
        """Let the disk be full as long as the ballast is there; returns what ends it."""
        before, ballast = user._connection, self.folder.ballast

        class Full(sqlite3.Connection):
            def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
                if sql == "COMMIT" and not self.had_ballast:
                    self.had_ballast = ballast.exists()
                    error = sqlite3.OperationalError("database or disk is full")
                    error.sqlite_errorcode = sqlite3.SQLITE_FULL
                    raise error
                return super().execute(sql, *parameters)

            had_ballast = False

        user._connection = sqlite3.connect(
            self.folder.database, isolation_level=None, check_same_thread=False, factory=Full
        )
        return lambda: setattr(user, "_connection", before)

    def test_a_bad_job_fails_alone(self) -> None:
        """A bug in one job doesn't harm the others, or end the thread."""
        spool = self.process()
        free = self.block(spool)
        committer = self.committers[spool]
        first = committer.submit(Job(action=lambda _: "first"))
        bad = committer.submit(Job(action=lambda _: [].pop()))
        last = committer.submit(Job(action=lambda _: "last"))
        free.set()
        self.assertEqual(self.wait(first), "first")
        self.assertRaises(IndexError, self.wait, bad)
        self.assertEqual(self.wait(last), "last")

    def test_locked(self) -> None:
        """A database that another program keeps locked: OSError, and all is well afterwards."""
        self.patch(database, "BUSY_TIMEOUT", 0)
        spool = self.process()
        other = sqlite3.connect(self.folder.database, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.assertRaises(OSError, self.commit, spool)
        other.execute("ROLLBACK")
        self.commit(spool)

    def test_trouble_is_logged(self) -> None:
        """The log has one error that names the file."""
        self.patch(database, "BUSY_TIMEOUT", 0)
        spool = self.process()
        other = sqlite3.connect(self.folder.database, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        with capturedLogs() as events:
            self.assertRaises(OSError, self.commit, spool)
        other.execute("ROLLBACK")
        (event,) = events
        self.assertEqual(event["log_level"], LogLevel.error)
        self.assertIn(str(self.folder.database), event["error"])

    def test_damaged_at_start(self) -> None:
        """A file that is no database is refused in one line that names it."""
        self.folder.make()
        self.folder.database.write_bytes(b"this is not a database" * 500)
        error = self.assertRaises(SpoolDamaged, self.process)
        self.assertIn(str(self.folder.database), str(error))
        self.assertNotIn("\n", str(error))

    def test_newer_version(self) -> None:
        """A spool of a newer version is refused, and not touched."""
        self.wait(self.restartable().stop())
        connection = sqlite3.connect(self.folder.database)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        error = self.assertRaises(OSError, self.process)
        self.assertIn("newer version", str(error))

    def test_older_version(self) -> None:
        """A spool of version 1 becomes one of today, with all that is in it."""
        self.wait(self.restartable().stop())
        with contextlib.closing(sqlite3.connect(self.folder.database)) as connection:
            connection.executescript(
                "DROP INDEX put_by; DROP INDEX suspect; DROP TABLE owner; DROP TABLE clock;"
                " ALTER TABLE message DROP COLUMN put_by;"
                " ALTER TABLE message DROP COLUMN deaths;"
                " ALTER TABLE message DROP COLUMN reason;"
                " ALTER TABLE message DROP COLUMN shift;"
                " ALTER TABLE message DROP COLUMN outside;"
                " PRAGMA user_version = 1;"
            )
        for _ in range(2):
            spool = self.restartable()
            self.wait(spool.release({self.commit(spool).id: 0.0}))
            self.wait(spool.stop())
        self.assertEqual(len(self.wait(self.process().lease_due(10))), 2)

    def test_folder_that_cannot_be_made(self) -> None:
        """The system's own words name the folder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("a file")
        self.assertIn(str(self.path), str(self.assertRaises(OSError, self.process)))


class SettlementTests(SpoolTestCase):
    """One attempt is recorded in one commit."""

    def test_deferred(self) -> None:
        """All that the attempt changed is there at the next one, which is not before its time."""
        spool = self.process()
        message = self.commit(spool, b"x", envelope(BOB, ALICE))
        attempt = HistoryEntry(self.now(), "mx:example.org", "deferred", "451 4.3.0 Later")
        progress = (
            Progress(Recipient(BOB), State.WAITING, "", frozenset({"b@x", "c@y"})).with_attempt(
                attempt
            ),
            Progress(Recipient(ALICE), State.DONE),
        )
        self.wait(spool.settle(Settlement(message.id, progress, self.now() + 60, 1, True)))
        self.assertEqual(self.wait(spool.next_due()), self.now() + 60)
        self.assertEqual(self.wait(spool.lease_due(10)), [])
        self.clock.advance(60)
        (again,) = self.wait(spool.lease_due(10))
        self.assertEqual(again.progress, progress)
        self.assertEqual((again.attempts, again.warned, again.recovered), (1, True, False))

    def test_done(self) -> None:
        """A message whose recipients are all done is gone, rows and all."""
        spool = self.process()
        self.wait(spool.settle(done(self.commit(spool))))
        for table in ("message", "recipient", "content", "leftover"):
            self.assertEqual(self.count(table), 0, table)

    def test_notices(self) -> None:
        """Notices are committed with the attempt, leased to us, large ones in files."""
        spool = self.process()
        message = self.commit(spool)
        to_alice = envelope(ALICE, reverse_path=NULL_PATH)
        notices = (Notice(to_alice, b"small"), Notice(to_alice, LARGE))
        small, large = self.wait(spool.settle(replace(done(message), notices=notices)))
        self.assertEqual((small.envelope, self.content(small)), (to_alice, b"small"))
        self.assertEqual(self.content(large), LARGE)
        self.assertEqual(self.wait(spool.lease_due(10)), [])
        self.assertEqual(self.files(), [large.id])

    def test_failure_changes_nothing(self) -> None:
        """Neither notices nor progress of a settlement that failed are there."""
        spool = self.process()
        message = self.commit(spool)

        def fsync(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(os, "fsync", fsync)
        wanted = replace(done(message), notices=(Notice(envelope(), LARGE),))
        self.assertRaises(OSError, self.wait, spool.settle(wanted))
        (entry,) = self.tools().find(Filter())
        self.assertEqual((entry.message.id, entry.state), (message.id, "active"))

    def test_removed(self) -> None:
        """Messages that are done are removed together, files and all."""
        spool = self.process()
        messages = [self.commit(spool), self.commit(spool, LARGE * 2)]
        self.wait(spool.remove([message.id for message in messages], 0.0))
        self.assertEqual((self.count("message"), self.files()), (0, []))

    def test_removed_in_time(self) -> None:
        """Removals wait for each other, or for a commit that somebody needs, but not for long."""
        spool = self.process()
        ids = [self.commit(spool).id for _ in range(4)]
        first, second = (Deferred.fromCoroutine(spool.remove([id], 9.0)) for id in ids[:2])
        self.clock.advance(8.9)
        self.assertEqual(self.count("message"), 4)
        self.clock.advance(0.1)
        self.wait(first)
        self.successResultOf(second)
        third = Deferred.fromCoroutine(spool.remove(ids[2:3], 9.0))
        self.commit(spool)
        self.successResultOf(third)
        fourth = Deferred.fromCoroutine(spool.remove(ids[3:], 9.0))
        self.wait(spool.remove([], 0.0))
        self.successResultOf(fourth)
        self.assertEqual(self.count("message"), 1)

    def test_removal_fails(self) -> None:
        """Whoever asked for it hears of it, and keeps the lease."""
        spool = self.process()
        ids = [self.commit(spool).id for _ in range(2)]
        self.wait(
            self.committers[spool].submit(Job(action=lambda c: c.execute("DROP TABLE leftover")))
        )
        both = [Deferred.fromCoroutine(spool.remove([id], 1.0)) for id in ids]
        self.clock.advance(1.0)
        for each in both:
            self.assertRaises(OSError, self.wait, each)
        self.assertEqual(self.count("message"), 2)
        self.assertEqual(len(spool._leases), 2)

    def test_a_lost_lease(self) -> None:
        """Whoever lost the lease can't put off the attempt of the new owner."""
        stuck, other = self.process(), self.process()
        message = self.commit(stuck)
        for _ in range(LOOKS):
            self.assertEqual(self.wait(other.take_over()), 0)
        self.assertEqual(self.wait(other.take_over()), 1)
        (again,) = self.wait(other.lease_due(10))
        self.assertTrue(again.recovered)
        self.wait(stuck.settle(settlement(message, self.now() + 9, peer="p")))
        (entry,) = self.tools().find(Filter())
        self.assertEqual((entry.state, entry.due), ("active", leases.NEVER))
        self.assertEqual(entry.message.progress, message.progress)

    def count(self, table: str) -> int:
        """Rows in a table."""
        connection = sqlite3.connect(self.folder.database)
        self.addCleanup(connection.close)
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


class SecretKeyTests(SynchronousTestCase):
    """The secret of forwarded mail's reverse-paths."""

    def test_made_once(self) -> None:
        """It is made on first use, for our eyes only, and stays as it is."""
        folder = temporary_folder(self)
        (folder / "queue.sqlite").touch()
        key = secret_key(folder)
        self.assertEqual(KEY_LENGTH, len(key))
        self.assertEqual(key, secret_key(folder))
        self.assertEqual(0o600, (folder / "srs.key").stat().st_mode & 0o777)

    def test_not_without_a_spool(self) -> None:
        """A tool that only looks leaves nothing that a spool in use would have."""
        folder = temporary_folder(self)
        self.assertRaises(OSError, secret_key, folder)
        self.assertEqual([], list(folder.iterdir()))


class LeaseTests(SpoolTestCase):
    """Each message is worked on by one process at most."""

    def test_order_and_limit(self) -> None:
        """The longest overdue come first, in portions."""
        spool = self.process()
        messages = [self.commit(spool) for _ in range(4)]
        for message, wait in zip(messages, (30, 10, 20, 90), strict=True):
            self.wait(spool.settle(settlement(message, self.now() + wait)))
        self.clock.advance(40)
        ids = [message.id for message in messages]
        self.assertEqual(self.leased(spool, 2), [ids[1], ids[2]])
        self.assertEqual(self.leased(spool, 2), [ids[0]])

    def test_one_owner(self) -> None:
        """What one has leased, or taken in, no other gets."""
        one, other = self.process(), self.process()
        self.commit(one)
        self.assertEqual(self.leased(other), [])
        message = self.commit(one)
        self.wait(one.release({message.id: 0.0}))
        self.assertEqual(self.leased(one), [message.id])
        self.assertEqual(self.leased(other), [])

    def test_released(self) -> None:
        """A message that is given back is due at once, for any process."""
        one, other = self.process(), self.process()
        message = self.commit(one)
        self.wait(one.release({message.id: 0.0}))
        self.assertEqual(self.wait(one.next_due()), self.now())
        (again,) = self.wait(other.lease_due(1))
        self.assertEqual((again.id, again.recovered), (message.id, False))

    def test_doubtful(self) -> None:
        """An attempt of which nobody knows what it did makes the message one to be careful with."""
        spool = self.process()
        message = self.commit(spool)
        self.wait(spool.settle(replace(settlement(message, self.now()), recovered=True)))
        (again,) = self.wait(spool.lease_due(1))
        self.assertTrue(again.recovered)

    def test_released_for_later(self) -> None:
        """A message may be given back to be due later; by its id it can be had before."""
        one, other = self.process(), self.process()
        first, second = self.commit(one), self.commit(one)
        later = self.now() + 600
        self.wait(one.release({first.id: later, second.id: later}))
        self.assertEqual([], self.leased(other, 2))
        self.assertEqual(later, self.wait(one.next_due()))
        (again,) = self.wait(one.lease([second.id]))
        self.assertEqual((again.id, again.recovered), (second.id, False))
        self.assertEqual(
            [first.id], [each.id for each in self.wait(other.lease([second.id, first.id]))]
        )

    def test_renewal(self) -> None:
        """Leases of a process that lives last as long as it needs them."""
        one, other = self.process(), self.process()
        message = self.commit(one)
        for _ in range(40):
            self.clock.advance(60)
            self.wait(self.committers[one].submit(Job()))  # a renewal before it is through
        self.assertEqual(self.leased(other), [])
        self.wait(one.settle(settlement(message, self.now())))
        self.assertEqual(self.leased(other), [message.id])

    def test_next_due(self) -> None:
        """What we work on ourselves is no reason to wake up."""
        spool = self.process()
        self.assertIsNone(self.wait(spool.next_due()))
        message = self.commit(spool)
        self.assertIsNone(self.wait(spool.next_due()))
        self.wait(spool.settle(settlement(message, self.now() + 5)))
        self.tools().hold([message.id])
        self.assertIsNone(self.wait(spool.next_due()))

    def test_stopped_process(self) -> None:
        """What a process leaves when it stops may have been delivered: it is `recovered`."""
        one = SqliteSpool(self.path, self.clock, self.pool, self.now)
        one.start()
        message = self.commit(one)
        self.wait(one.stop())
        (again,) = self.wait(self.process().lease_due(1))
        self.assertEqual((again.id, again.recovered), (message.id, True))
        self.assertEqual(len(list((self.path / "owners").glob("*.lock"))), 1)

    def leased(self, spool: SqliteSpool, limit: int = 10) -> list[str]:
        """The ids of what is leased now."""
        return [message.id for message in self.wait(spool.lease_due(limit))]


class HeldTests(SpoolTestCase):
    """Mail that waits for its peer."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.process()

    def hold(self, *domains: str, peer: str = "office") -> str:
        """A message held for a peer until a day from now."""
        message = self.commit(self.spool, wanted=envelope(*(Mailbox("x", d) for d in domains)))
        held = settlement(message, self.now() + 86400, state=State.HELD, peer=peer)
        self.wait(self.spool.settle(held))
        return message.id

    def test_of_the_peer_alone(self) -> None:
        """A peer gets what is held for it, oldest first, in portions, each once."""
        first, second = self.hold("a.example"), self.hold("a.example", "b.example")
        self.hold("a.example", peer="other")
        third = self.hold("b.example")
        domains = {"a.example", "b.example"}
        self.assertEqual(self.leased(domains, 2), [first, second])
        self.assertEqual(self.leased(domains, 2), [third])
        self.assertEqual(self.leased(domains, 2), [])

    def test_of_its_domains_alone(self) -> None:
        """Exact names and names below; nothing that only ends alike."""
        self.hold("other.example")
        self.hold("notdeep.example")
        exact = self.hold("a.example")
        below = self.hold("x.y.deep.example")
        self.hold("deep.example")
        self.assertEqual(self.leased({"a.example", ".deep.example"}), [exact, below])

    def test_everywhere(self) -> None:
        """A lone dot stands for any domain, and for the peer's mail alone."""
        mine = [self.hold("a.example"), self.hold("b.test")]
        self.hold("a.example", peer="other")
        self.assertEqual(self.leased({"."}), mine)

    def test_count(self) -> None:
        """What waits is counted, also while it is on its way, up to a limit."""
        for domain in ("a.example", "a.example", "b.example", "x.b.example"):
            self.hold(domain)
        self.hold("a.example", peer="other")
        self.leased({"a.example"}, 1)
        for domains, most, count in [
            ({"a.example"}, 10, 2),
            ({"a.example"}, 1, 1),
            ({"a.example", ".b.example"}, 10, 3),
            ({"."}, 10, 4),
            ({"c.example"}, 10, 0),
        ]:
            self.assertEqual(self.wait(self.spool.count_held("office", domains, most)), count)

    def test_wildcards_have_no_meaning(self) -> None:
        """A domain with characters that mean something to SQL finds nothing."""
        self.hold("a.example")
        self.assertEqual(self.leased({"%", ".%", "_.example", "' OR 1 --"}), [])

    def test_not_due(self) -> None:
        """It is outside of the retry schedule until it expires."""
        held = self.hold("a.example")
        self.assertEqual(self.wait(self.spool.lease_due(1)), [])
        self.clock.advance(86400)
        self.assertEqual([m.id for m in self.wait(self.spool.lease_due(1))], [held])

    def test_done_recipients_do_not_count(self) -> None:
        """A message that is held no more is not found."""
        self.hold("a.example")
        (message,) = self.wait(self.spool.lease_held("office", {"a.example"}, 1))
        waiting = settlement(message, self.now() + 60, state=State.WAITING, peer="")
        self.wait(self.spool.settle(waiting))
        self.assertEqual(self.leased({"a.example"}), [])

    def leased(self, domains: Iterable[str], limit: int = 10) -> list[str]:
        """The ids of what is leased for the office."""
        messages = self.wait(self.spool.lease_held("office", set(domains), limit))
        return [message.id for message in messages]


class WakeTests(SpoolTestCase):
    """Work that one process makes is noticed by the others."""

    def setUp(self) -> None:
        super().setUp()
        self.one, self.other = self.process(), self.process()
        self.woken: list[str] = []
        self.one.on_wake = lambda: self.woken.append("one")
        self.other.on_wake = lambda: self.woken.append("other")

    def test_held(self) -> None:
        """Mail held for a peer, whose link another process may have, wakes the others."""
        message = self.commit(self.one)
        self.wait(self.one.settle(settlement(message, self.now() + 9, state=State.HELD, peer="p")))
        self.assertEqual(self.heard(), ["other"])

    def test_deferred(self) -> None:
        """Mail that is due later wakes nobody."""
        self.wait(self.one.settle(settlement(self.commit(self.one), self.now() + 9)))
        self.assertEqual(self.heard(), [])

    def test_released(self) -> None:
        """Mail that is given back wakes the others, once."""
        self.wait(self.one.release({self.commit(self.one).id: 0.0}))
        self.wait(self.one.release({self.commit(self.one).id: 0.0}))
        self.assertEqual(self.heard(), ["other"])

    def test_tools(self) -> None:
        """The tools wake every process."""
        self.tools().enqueue(envelope(), [b"content"])
        self.assertEqual(sorted(self.heard()), ["one", "other"])

    def test_recalled(self) -> None:
        """Who works on what was put on hold or removed hears of it, and can ask what it was."""
        ids = [self.commit(self.one).id for _ in range(3)]
        other = self.commit(self.other).id
        recalls: list[str] = []
        self.one.on_recall = lambda: recalls.append("one")
        tools = self.tools()
        for change, id in ((tools.hold, ids[0]), (tools.delete, ids[1])):
            change([id])
            self.heard()
        self.assertEqual(recalls, ["one", "one"])
        recalled = self.wait(self.one.recalled([*ids, other]))
        self.assertEqual(list(recalled), [ids[0], ids[1], other])

    def test_wanted_now(self) -> None:
        """Who retries or releases wants it tried whatever was unreachable; nobody else does."""
        tools = self.tools()
        name = tools.enqueue(envelope(), [b"content"])
        self.one.on_retry = lambda: self.woken.append("now")
        self.assertEqual(sorted(self.heard()), ["one", "other"])
        for change in (tools.retry, tools.hold, tools.release):
            change([name])
            self.woken.clear()
            wanted = [] if change == tools.hold else ["now"]
            self.assertEqual(sorted(self.heard()), sorted([*wanted, "one", "other"]))

    def test_deaf(self) -> None:
        """A bell whose owner is dead, or has been rung too often, keeps nobody waiting."""
        os.mkfifo(self.path / "owners" / "DEAD.wake")
        for reader in self.clock.readers:
            os.write(reader.fileno(), bytes(65536))  # as much as a FIFO holds
        self.tools().enqueue(envelope(), [b"content"])
        self.assertEqual(sorted(self.heard()), ["one", "other"])

    def heard(self) -> list[str]:
        """Let the reactor read what there is to read."""
        for reader in self.clock.readers:
            with contextlib.suppress(BlockingIOError):  # a bell that was not rung
                reader.doRead()
        return self.woken


class TakeOverTests(SpoolTestCase):
    """A dead owner's mail is taken over."""

    def test_dead(self) -> None:
        """It is due at once, and `recovered`; the owner's files are gone."""
        dead, heir = self.process(), self.process()
        message = self.commit(dead)
        draft = dead.draft()
        self.wait(draft.write(LARGE))
        self.wait(draft.write(LARGE))
        self.kill(dead)
        self.assertEqual(self.wait(heir.take_over()), 1)
        (again,) = self.wait(heir.lease_due(10))
        self.assertEqual((again.id, again.recovered), (message.id, True))
        self.assertEqual(self.files(), [])
        self.assertEqual(len(owners.living(self.folder)), 1)

    def test_recovered_for_good(self) -> None:
        """Later attempts know as well that a delivery may have happened."""
        dead, heir = self.process(), self.process()
        self.commit(dead)
        self.kill(dead)
        self.wait(heir.take_over())
        (message,) = self.wait(heir.lease_due(1))
        self.wait(heir.settle(settlement(message, self.now())))
        self.assertTrue(self.wait(heir.lease_due(1))[0].recovered)

    def test_put_by(self) -> None:
        """What a dead owner had put by, and alone remembered, is due at once, but not on hold."""
        self.patch(take_over, "_PORTION", 2)
        dead, alive, heir = self.process(), self.process(), self.process()
        later = self.now() + 600
        (kept,) = self.put_by(alive, later, 1)
        on_hold, *put_by = self.put_by(dead, later, 4)
        self.tools().hold([on_hold])
        self.kill(dead)
        self.assertEqual(self.wait(heir.take_over()), 4)
        due = self.wait(heir.lease_due(10))
        self.assertEqual(
            [(each.id, each.recovered) for each in due], [(id, False) for id in put_by]
        )
        self.assertEqual([kept], [each.id for each in self.wait(alive.lease([kept]))])

    def put_by(self, spool: SqliteSpool, due: float, count: int) -> list[str]:
        """Messages that were given back untried until later."""
        ids = [self.commit(spool).id for _ in range(count)]
        self.wait(spool.release(dict.fromkeys(ids, due)))
        return ids

    def test_put_by_and_stopped(self) -> None:
        """An orderly end leaves nothing that waits for a process that is gone."""
        stopped = self.restartable()
        put_by = self.put_by(stopped, self.now() + 600, 2)
        self.wait(stopped.stop())
        self.assertEqual([each.id for each in self.wait(self.process().lease_due(10))], put_by)

    def test_living(self) -> None:
        """Nothing of a living owner is touched."""
        alive, other = self.process(), self.process()
        self.commit(alive)
        draft = alive.draft()
        self.wait(draft.write(LARGE))
        self.wait(draft.write(LARGE))
        self.assertEqual(self.wait(other.take_over()), 0)
        self.assertEqual(self.wait(other.lease_due(10)), [])
        message = self.wait(alive.commit(draft, envelope()))
        self.assertEqual(self.content(message), LARGE * 2)

    def test_on_hold(self) -> None:
        """What the person in charge wants kept is kept."""
        dead, heir = self.process(), self.process()
        message = self.commit(dead)
        self.tools().hold([message.id])
        self.kill(dead)
        self.wait(heir.take_over())
        self.assertEqual(self.wait(heir.lease_due(10)), [])

    def test_name_lost_before_the_lock(self) -> None:
        """A new owner whose file was buried before it had the lock takes another name."""
        self.process()
        real, buried = owners._lock, []

        def lock(descriptor: int) -> bool:
            if not buried:
                (path,) = [
                    path
                    for path in (self.path / "owners").glob("*.lock")
                    if path.stat().st_ino == os.fstat(descriptor).st_ino
                ]
                buried.append(path)
                path.unlink()
            return real(descriptor)

        self.patch(owners, "_lock", lock)
        ours = owners.register(self.folder, queue_id.QueueIds(self.now))
        self.addCleanup(ours.close)
        self.assertEqual(len(buried), 1)
        self.assertIn(ours.number, owners.living(self.folder))

    def test_two_heirs(self) -> None:
        """Two that meet over one dead owner do no harm: each message is freed once."""
        dead, one, other = self.process(), self.process(), self.process()
        self.commit(dead)
        self.kill(dead)
        (first,) = owners.dead(self.folder, one._owner.number)
        self.assertEqual(self.wait(other.take_over()), 0)
        self.assertEqual(self.wait(one._taking_over.succeed(first, died=True)), 1)
        self.assertEqual(self.wait(other.take_over()), 0)

    def kill(self, spool: SqliteSpool) -> None:
        """Drop the lock, as the system does for a process that was killed."""
        spool._owner.close()
        self.patch(spool, "stop", self.bury(spool))

    def bury(self, spool: SqliteSpool) -> Callable[[], Any]:
        """End what is left of a killed process without touching the spool."""

        async def stop() -> None:
            spool._heartbeat.stop()
            spool._bell.close()
            await self.committers[spool].stop()
            spool._reader.close()
            spool._watcher.close()

        return stop


class ToolTests(SpoolTestCase):
    """The spool as the person in charge sees it."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.process()
        self.postmaster = self.tools()

    def waiting(self, wanted: Envelope | None = None) -> Message:
        """A message that is due in an hour."""
        message = self.commit(self.spool, wanted=wanted)
        self.wait(self.spool.settle(settlement(message, self.now() + 3600)))
        return message

    def found(self, **parts: Any) -> list[str]:
        """The ids of the messages that fit."""
        return [entry.message.id for entry in self.postmaster.find(Filter(**parts))]

    def test_states(self) -> None:
        """Active: worked on.  Held: for a peer or on hold.  Waiting: the rest."""
        active = self.commit(self.spool)
        waiting, on_hold = self.waiting(), self.waiting()
        held = self.commit(self.spool)
        self.wait(self.spool.settle(settlement(held, self.now(), state=State.HELD, peer="office")))
        self.postmaster.hold([on_hold.id])
        states = [entry.state for entry in self.postmaster.find(Filter())]
        self.assertEqual(states, ["active", "waiting", "held", "held"])
        self.assertEqual(self.found(state="active"), [active.id])
        self.assertEqual(self.found(state="waiting"), [waiting.id])
        self.assertEqual(self.found(state="held"), [on_hold.id, held.id])
        self.assertEqual(self.found(peer="office"), [held.id])

    def test_filters(self) -> None:
        """All parts that are given must fit."""
        old = self.waiting(envelope(BOB, reverse_path=NULL_PATH))
        self.clock.advance(7200)
        new = self.waiting(envelope(Mailbox("Carol", "example.net"), BOB))
        self.assertEqual(self.found(), [old.id, new.id])
        self.assertEqual(self.found(older=3600.0), [old.id])
        self.assertEqual(self.found(ids=frozenset({new.id, "nonsense"})), [new.id])
        self.assertEqual(self.found(ids=frozenset({"nonsense"})), [])
        self.assertEqual(self.found(reverse_path="<>"), [old.id])
        self.assertEqual(self.found(reverse_path="ALICE@example.com"), [new.id])
        self.assertEqual(self.found(forward_path="carol@example.net"), [new.id])
        self.assertEqual(self.found(domain="example.org"), [old.id, new.id])
        self.assertEqual(self.found(domain="example.org", older=3600.0), [old.id])

    def test_portions(self) -> None:
        """A long queue is read and changed in portions."""
        self.patch(tools, "_PORTION", 2)
        messages = [self.waiting().id for _ in range(5)]
        self.assertEqual(self.found(), messages)
        self.assertEqual(len(self.postmaster.retry(messages)), 5)
        self.assertEqual(len(self.postmaster.delete(messages)), 5)
        self.assertEqual(self.found(), [])

    def test_hold_and_release(self) -> None:
        """On hold nothing is tried; released it is tried at once."""
        message = self.waiting()
        self.assertEqual(len(self.postmaster.hold([message.id])), 1)
        self.assertEqual(len(self.postmaster.hold([message.id])), 0)
        self.assertEqual(len(self.postmaster.retry([message.id])), 0)
        self.clock.advance(7200)
        self.assertEqual(self.wait(self.spool.lease_due(1)), [])
        self.assertEqual(len(self.postmaster.release([message.id])), 1)
        self.assertEqual(len(self.wait(self.spool.lease_due(1))), 1)

    def test_hold_during_an_attempt(self) -> None:
        """It takes effect when the attempt ends."""
        message = self.commit(self.spool)
        self.assertEqual(len(self.postmaster.hold([message.id])), 1)
        self.wait(self.spool.settle(settlement(message, self.now())))
        self.assertEqual(self.wait(self.spool.lease_due(1)), [])

    def test_held_mail_on_hold(self) -> None:
        """A peer doesn't get what is on hold."""
        message = self.commit(self.spool)
        self.wait(self.spool.settle(settlement(message, self.now(), state=State.HELD, peer="p")))
        self.postmaster.hold([message.id])
        self.assertEqual(self.wait(self.spool.lease_held("p", {"example.org"}, 1)), [])

    def test_retry(self) -> None:
        """What waits is due now; what is worked on stays with its owner."""
        waiting, active = self.waiting(), self.commit(self.spool)
        self.assertEqual(len(self.postmaster.retry([waiting.id, active.id, "nonsense"])), 1)
        self.assertEqual([m.id for m in self.wait(self.spool.lease_due(9))], [waiting.id])

    def test_retry_after_a_crash(self) -> None:
        """With the server down, a dead owner's mail can be retried too."""
        message = self.commit(self.spool)
        self.spool._owner.close()
        self.assertEqual(len(self.postmaster.retry([message.id])), 1)
        (entry,) = self.postmaster.find(Filter())
        self.assertEqual((entry.state, entry.due), ("waiting", self.now()))
        self.assertTrue(entry.message.recovered)

    def test_delete(self) -> None:
        """The message is gone with its file; its attempt ends without a trace."""
        message = self.commit(self.spool, LARGE)
        self.assertEqual(len(self.postmaster.delete([message.id, message.id[::-1]])), 1)
        self.assertEqual(self.files(), [])
        self.wait(self.spool.settle(settlement(message, self.now())))
        self.assertEqual(self.found(), [])

    def test_enqueue(self) -> None:
        """A message put in by hand is due now, for any process."""
        for content in (b"small", LARGE + b"\xff"):
            name = self.postmaster.enqueue(envelope(), [content[:3], content[3:]])
            (message,) = self.wait(self.spool.lease_due(2))
            self.assertEqual((message.id, message.recovered), (name, False))
            self.assertEqual(self.content(message), content)
            self.assertEqual(message.content.is_ascii, content.isascii())
        self.assertEqual(len(list((self.path / "owners").glob("*.lock"))), 1)
        self.assertEqual(self.files(), [name])

    def test_root(self) -> None:
        """A tool that runs as root leaves no file that the server can't use."""
        if os.geteuid():
            raise SkipTest("only root can give files away")
        self.path = Path(self.mktemp())
        self.path.mkdir(parents=True)
        os.chown(self.path, 1234, 1235)
        name = self.tools().enqueue(envelope(), [LARGE])
        self.assertEqual(self.files(), [name])
        for path in self.path.rglob("*"):
            self.assertEqual((path.stat().st_uid, path.stat().st_gid), (1234, 1235), path)

    def test_enqueue_fails(self) -> None:
        """Nothing is left of a message that didn't fit."""

        def pieces() -> Iterable[bytes]:
            yield LARGE
            raise OSError(errno.EIO, "Input/output error")

        self.assertRaises(OSError, self.postmaster.enqueue, envelope(), pieces())
        self.assertEqual((self.found(), self.files()), ([], []))

    def test_content_without_a_reactor(self) -> None:
        """Content is read at once."""
        self.commit(self.spool, b"small")
        self.commit(self.spool, LARGE)
        contents = [self.read(entry.message) for entry in self.postmaster.find(Filter())]
        self.assertEqual(contents, [b"small", LARGE])

    def read(self, message: Message) -> bytes:
        """The whole content, without waiting for anything."""

        async def read() -> Sequence[bytes]:
            return [piece async for piece in message.content.pieces()]

        return b"".join(self.successResultOf(read()))
