"""The spool where the system, or a part of ours, fails: everyone is answered, and it goes on."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel, capturedLogs

from mta.queued import Filter, SpoolFull
from mta.session import UNKNOWN_ORIGIN
from mta.spool import batches
from mta.spool import committer as committer_module
from mta.spool.committer import Committer
from mta.spool.folder import Folder
from mta.spool.jobs import Job
from tests.spool.cases import (
    LARGE,
    CommitMeter,
    Once,
    SpoolTestCase,
    envelope,
    failing,
    of_sqlite,
    settlement,
)

# Calls of the system that a message with a file takes, with what can become of them.
CALLS = ("open", "write", "fsync", "link", "statvfs", "close")
NUMBERS = ("ENOSPC", "EDQUOT", "EIO", "EROFS", "EMFILE", "ENFILE", "ENOMEM", "EACCES")
# What happens in the committer's thread, around the transaction and in it.
INNER: tuple[tuple[str, object, str, BaseException], ...] = (
    ("room can't be asked for", Folder, "has_room", OSError(errno.EIO, "no")),
    ("no memory for room", Folder, "has_room", MemoryError()),
    ("the transaction", batches.BatchWriter, "_transact", MemoryError()),
    ("a bug", batches.BatchWriter, "_transact", ZeroDivisionError()),
    ("the end of a thread", batches.BatchWriter, "_transact", SystemExit()),
    ("the lock", batches, "locked", OSError(errno.ENOLCK, "no locks")),
    ("translating", batches, "translated", ZeroDivisionError()),
)
CODES = (
    *("BUSY", "FULL", "IOERR_SHMSIZE", "CORRUPT", "IOERR"),
    *("NOMEM", "CANTOPEN", "READONLY", "PROTOCOL", "LOCKED"),
)


class SystemTests(SpoolTestCase):
    """Each call of the system fails once: refused, one line, and the next one is taken."""

    def test_calls(self) -> None:
        """A message with a file is refused, or its client has its 250: never a lost answer."""
        for call in CALLS:
            for name in NUMBERS:
                with self.subTest(call=call, errno=name):
                    number = getattr(errno, name)
                    self.refused_and_taken(os, call, OSError(number, os.strerror(number)))

    def refused_and_taken(self, owner: Any, name: str, error: BaseException) -> None:
        """Commit while something fails once, and again."""
        self.clock.advance(1)
        spool = self.restartable()
        spool.reserve = 1
        self.commit(spool)
        once = Once(getattr(owner, name), error)
        patch = self.patch(owner, name, once)
        with capturedLogs() as events:
            try:
                self.commit(spool, LARGE * 2)
            except OSError as refused:
                is_full = getattr(error, "errno", 0) in (errno.ENOSPC, errno.EDQUOT) or (
                    str(error) in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
                )
                self.assertEqual(isinstance(refused, SpoolFull), is_full)
        patch.restore()
        self.assertLess(len(events), 3)
        self.assertNotIn("log_failure", [key for event in events for key in event])
        self.commit(spool, LARGE * 2)
        self.commit(spool)
        self.wait(spool.stop())

    def test_database(self) -> None:
        """Whatever SQLite says at the commit, the next message is taken."""
        for code in CODES:
            with self.subTest(code=code):
                error = of_sqlite(f"SQLITE_{code}")
                self.refused_and_taken(batches, "transaction", error)

    def test_a_failed_sync_is_not_believed(self) -> None:
        """What was not synced is gone, and never committed after a second sync that succeeds."""
        spool = self.process()
        self.patch(os, "fsync", Once(os.fsync, OSError(errno.EIO, "Input/output error")))
        self.assertRaises(OSError, self.commit, spool, LARGE * 2)
        while self.files():
            self.clock.make_call()
        self.assertEqual([*self.tools().find(Filter())], [])


class GuardTests(SpoolTestCase):
    """The committer answers everyone, and outlives everything."""

    def test_whatever_fails(self) -> None:
        """The one commit fails in time; the next one, and leasing, succeed."""
        for what, owner, name, error in INNER:
            with self.subTest(what=what):
                self.clock.advance(1)
                spool = self.restartable()
                spool.reserve = 1
                first = self.commit(spool)
                room = self.patch(Folder, "has_room", Folder.has_room)
                if what == "translating":
                    self.patch(Folder, "has_room", failing(OSError(errno.EIO, "no")))
                patch = self.patch(owner, name, failing(error))
                waiting = Deferred.fromCoroutine(
                    spool.commit(spool.draft(), envelope(), b"", UNKNOWN_ORIGIN)
                )
                self.assertRaises(BaseException, self.wait, waiting)  # noqa: B017
                patch.restore()
                room.restore()
                self.commit(spool)
                self.wait(spool.release({first.id: 0.0}))
                self.assertIn(first.id, [each.id for each in self.wait(spool.lease_due(99))])
                self.assertEqual(spool.failure, "")
                self.wait(spool.stop())
                self.flushLoggedErrors()

    def test_room_and_the_rest_of_a_batch(self) -> None:
        """Where nobody can say how much room there is, no mail is taken, and all else is done."""
        spool = self.process()
        message = self.commit(spool)
        free = self.block(spool)
        self.patch(Folder, "has_room", failing(OSError(errno.EIO, "Input/output error")))
        refused = Deferred.fromCoroutine(
            spool.commit(spool.draft(), envelope(), b"", UNKNOWN_ORIGIN)
        )
        settled = Deferred.fromCoroutine(spool.settle(settlement(message, self.now())))
        free.set()
        self.assertRaises(OSError, self.wait, refused)
        self.assertEqual(self.wait(settled), [])

    def test_meter(self) -> None:
        """Whoever counts can't make a 451 of a commit."""
        meter = CommitMeter()
        spool = self.restartable(meter)
        patch = self.patch(meter, "committed", failing(ZeroDivisionError()))
        self.commit(spool)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        patch.restore()
        self.commit(spool)
        self.assertEqual(meter.counted, [1])
        self.wait(spool.stop())

    def test_ballast_that_cannot_be_dropped(self) -> None:
        """A disk that is full and fails as well is full."""
        spool = self.process()
        message = self.commit(spool)
        self.patch(Folder, "drop_ballast", failing(OSError(errno.EIO, "Input/output error")))
        self.patch(batches, "transaction", failing(of_sqlite("SQLITE_FULL")))
        self.assertRaises(SpoolFull, self.wait, spool.settle(settlement(message, self.now())))

    def test_the_thread_ends(self) -> None:
        """What waits and what comes fails at once, those who watch hear of it, and it stops."""
        spool = self.restartable()
        committer = self.committers[spool]
        free = self.block(spool)
        waiting = Deferred.fromCoroutine(
            spool.commit(spool.draft(), envelope(), b"", UNKNOWN_ORIGIN)
        )
        self.patch(committer, "_next_batch", failing(RuntimeError("no more")))
        free.set()
        self.assertRaises(OSError, self.wait, waiting)
        self.assertRaises(OSError, self.commit, spool)
        self.assertIn("restart", spool.failure)
        self.assertTrue(spool.has_ended)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.wait(spool.stop())

    def test_stop_ends(self) -> None:
        """A disk that never answers does not keep the process."""
        spool = self.process()
        free = self.block(spool)
        stopped = self.committers[spool].stop()
        with capturedLogs() as events:
            self.clock.advance(committer_module.STOP_TIMEOUT)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.error])
        self.assertIsNone(self.successResultOf(stopped))
        free.set()

    def test_stop_before_start(self) -> None:
        """Nothing is there to be stopped."""
        self.successResultOf(Committer(self.folder, self.clock).stop())

    def test_order(self) -> None:
        """What was settled in a commit is told before it is leased again in the same one."""
        spool = self.process()
        message = self.commit(spool)
        free = self.block(spool)
        order: list[str] = []
        leasing = Deferred.fromCoroutine(spool.lease_due(9))
        leasing.addCallback(lambda found: order.append(f"leased {len(found)}"))
        settling = Deferred.fromCoroutine(spool.settle(settlement(message, self.now())))
        settling.addCallback(lambda _: order.append("settled"))
        free.set()
        self.wait(leasing)
        self.assertEqual(order, ["settled", "leased 1"])

    def test_cancelled(self) -> None:
        """What is committed for a client that is gone is delivered all the same, and at once."""
        for content in (b"content", LARGE * 2):
            spool = self.restartable()
            draft = spool.draft()
            self.wait(draft.write(content))
            free = self.block(spool)
            waiting = Deferred.fromCoroutine(spool.commit(draft, envelope(), b"", UNKNOWN_ORIGIN))
            while len(content) > 99 and not (self.folder.contents / draft.id).exists():
                self.clock.make_call()
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            free.set()
            found: set[str] = set()
            while draft.id not in found:
                self.wait(self.committers[spool].submit(Job()))
                found |= {message.id for message in self.wait(spool.lease_due(9))}
            self.wait(spool.stop())
