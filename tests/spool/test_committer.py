"""Commits on a disk, or with a database, that fails."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs
from twisted.python.monkey import MonkeyPatcher

from mta.queued import (
    Filter,
    Message,
    Notice,
    SpoolFull,
)
from mta.session import UNKNOWN_ORIGIN
from mta.spool import batches, database, tool_commits
from mta.spool.folder import BALLAST, Folder
from mta.spool.holds import StandingHold, StandingHolds
from mta.spool.jobs import Job
from mta.spool.tools import SpoolTools
from tests.spool.cases import LARGE, SpoolTestCase, done, envelope, of_sqlite


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
            Deferred.fromCoroutine(spool.commit(draft, envelope(), b"", UNKNOWN_ORIGIN)).addBoth(
                results.append
            )
        free.set()
        while len(results) < 3:
            self.clock.make_call()
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
        notice = Notice(envelope(), b"", b"failed")
        settled = Deferred.fromCoroutine(spool.settle(replace(done(message), notices=(notice,))))
        refused = Deferred.fromCoroutine(
            spool.commit(spool.draft(), envelope(), b"", UNKNOWN_ORIGIN)
        )
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
        self.until_dropped(batches)
        self.wait(spool.settle(done(message)))
        self.assertFalse(self.folder.ballast.exists())

    def test_no_ballast(self) -> None:
        """Where room can't be set aside, no empty file stays in its place."""
        spool = self.process()
        self.patch(Folder, "_free", lambda folder: BALLAST)
        full = OSError(errno.ENOSPC, "No space left on device")
        with patch("mta.spool.folder.os.posix_fallocate", side_effect=full):
            self.assertRaises(OSError, self.wait, spool.take_over())
        self.assertFalse(self.folder.ballast.exists())
        self.wait(spool.take_over())
        self.assertEqual(self.folder.ballast.stat().st_size, BALLAST)

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
            patched = self.until_dropped(tool_commits)
            self.assertEqual(change([message.id]), [message.id])
            self.assertFalse(self.folder.ballast.exists())
            patched.restore()
        self.until_dropped(tool_commits)
        self.assertRaises(SpoolFull, tools.delete, [message.id])

    def until_dropped(self, module: ModuleType) -> MonkeyPatcher:
        """Let the disk be full as long as the ballast is there; returns what ends it."""
        real, ballast = module.transaction, self.folder.ballast
        had_ballast = False

        @contextmanager
        def transaction(connection: sqlite3.Connection) -> Iterator[None]:
            nonlocal had_ballast
            with real(connection):
                yield
                if not had_ballast:
                    had_ballast = ballast.exists()
                    raise of_sqlite("SQLITE_FULL")

        return self.patch(module, "transaction", transaction)

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


class StandingHoldTests(SpoolTestCase):
    """New mail is put on hold in the commit that takes it in."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.process()
        self.holds = StandingHolds(self.folder)

    def commits(self, count: int) -> list[Deferred[Message]]:
        """Messages that share a commit."""
        free = self.block(self.spool)
        started = [
            Deferred.fromCoroutine(
                self.spool.commit(self.spool.draft(), envelope(), b"", UNKNOWN_ORIGIN)
            )
            for _ in range(count)
        ]
        free.set()
        return started

    def test_once_for_each_commit(self) -> None:
        """The file is looked at once for all the messages of a commit."""
        looks: list[int] = []
        current = StandingHolds.current

        def counted(holds: StandingHolds) -> Sequence[StandingHold]:
            looks.append(1)
            return current(holds)

        self.patch(StandingHolds, "current", counted)
        messages = [self.wait(commit) for commit in self.commits(20)]
        self.assertEqual([message.on_hold for message in messages], [""] * 20)
        self.assertEqual(len(looks), 1)

    def test_as_soon_as_it_stands(self) -> None:
        """A hold that is added before the commit applies to what waits for it."""
        free = self.block(self.spool)
        waiting = Deferred.fromCoroutine(
            self.spool.commit(self.spool.draft(), envelope(), b"", UNKNOWN_ORIGIN)
        )
        self.holds.add(StandingHold(domain="example.org"))
        free.set()
        self.assertEqual(self.wait(waiting).on_hold, "new mail is, --domain example.org")
        self.assertEqual(self.wait(self.spool.lease_due(9)), [])

    def test_damaged(self) -> None:
        """Where they can't be read all but new mail goes on."""
        message = self.commit(self.spool)
        (self.folder.path / "holds.json").write_text("[{")
        free = self.block(self.spool)
        refused = Deferred.fromCoroutine(
            self.spool.commit(self.spool.draft(), envelope(), b"", UNKNOWN_ORIGIN)
        )
        settled = Deferred.fromCoroutine(self.spool.settle(done(message)))
        free.set()
        self.assertRaises(OSError, self.wait, refused)
        self.assertEqual(self.wait(settled), [])
