"""The spool where the system, or a part of ours, fails: everyone is answered, and it goes on."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel, capturedLogs

from mta.queued import Filter, SpoolFull
from mta.spool import committer as committer_module
from mta.spool import heartbeat, owners, queue_id
from mta.spool.committer import Committer, Job
from mta.spool.database import SpoolDamaged, open_database
from mta.spool.folder import BALLAST, Folder
from tests.spool.test_spool import LARGE, SpoolTestCase, envelope, settlement


def failing(error: BaseException) -> Callable[..., Any]:
    """A function that raises."""

    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def of_sqlite(name: str) -> sqlite3.OperationalError:
    """An error as the sqlite3 module raises it."""
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error


class Once:
    """Stands for a function, and raises the first time that it is called."""

    def __init__(self, real: Callable[..., Any], error: BaseException) -> None:
        self.calls = 0
        self._real = real
        self._error = error

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Raise, or do what is asked."""
        self.calls += 1
        if self.calls == 1:
            raise self._error
        return self._real(*arguments, **named)


# Calls of the system that a message with a file takes, with what can become of them.
CALLS = ("open", "write", "fsync", "link", "statvfs", "close")
NUMBERS = ("ENOSPC", "EDQUOT", "EIO", "EROFS", "EMFILE", "ENFILE", "ENOMEM", "EACCES")
# What happens in the committer's thread, around the transaction and in it.
INNER: tuple[tuple[str, object, str, BaseException], ...] = (
    ("room can't be asked for", Folder, "has_room", OSError(errno.EIO, "no")),
    ("no memory for room", Folder, "has_room", MemoryError()),
    ("the transaction", committer_module.Committer, "_transact", MemoryError()),
    ("a bug", committer_module.Committer, "_transact", ZeroDivisionError()),
    ("the end of a thread", committer_module.Committer, "_transact", SystemExit()),
    ("the lock", committer_module, "turn", OSError(errno.ENOLCK, "no locks")),
    ("translating", committer_module, "translated", ZeroDivisionError()),
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
                self.refused_and_taken(committer_module, "transaction", error)

    def test_a_failed_sync_is_not_believed(self) -> None:
        """What was not synced is gone, and never committed after a second sync that succeeds."""
        spool = self.process()
        self.patch(os, "fsync", Once(os.fsync, OSError(errno.EIO, "Input/output error")))
        self.assertRaises(OSError, self.commit, spool, LARGE * 2)
        while self.files():
            self.clock.pump()
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
                waiting = Deferred.fromCoroutine(spool.commit(spool.draft(), envelope()))
                self.assertRaises(BaseException, self.wait, waiting)  # noqa: B017
                patch.restore()
                room.restore()
                self.commit(spool)
                self.wait(spool.release({first.id: 0.0}))
                self.assertIn(first.id, [each.id for each in self.wait(spool.lease_due(99))])
                self.assertEqual(spool.trouble, "")
                self.wait(spool.stop())
                self.flushLoggedErrors()

    def test_room_and_the_rest_of_a_batch(self) -> None:
        """Where nobody can say how much room there is, no mail is taken, and all else is done."""
        spool = self.process()
        message = self.commit(spool)
        free = self.block(spool)
        self.patch(Folder, "has_room", failing(OSError(errno.EIO, "Input/output error")))
        refused = Deferred.fromCoroutine(spool.commit(spool.draft(), envelope()))
        settled = Deferred.fromCoroutine(spool.settle(settlement(message, self.now())))
        free.set()
        self.assertRaises(OSError, self.wait, refused)
        self.assertEqual(self.wait(settled), [])

    def test_meter(self) -> None:
        """Whoever counts can't make a 451 of a commit."""
        spool = self.process()
        spool.on_commit = failing(ZeroDivisionError())
        self.commit(spool)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        counted: list[int] = []
        spool.on_commit = lambda jobs, seconds: counted.append(jobs)
        self.commit(spool)
        self.assertEqual(counted, [1])

    def test_ballast_that_cannot_be_thrown(self) -> None:
        """A disk that is full and fails as well is full."""
        spool = self.process()
        message = self.commit(spool)
        self.patch(Folder, "throw_ballast", failing(OSError(errno.EIO, "Input/output error")))
        self.patch(committer_module, "transaction", failing(of_sqlite("SQLITE_FULL")))
        self.assertRaises(SpoolFull, self.wait, spool.settle(settlement(message, self.now())))

    def test_the_thread_ends(self) -> None:
        """What waits and what comes fails at once, those who watch hear of it, and it stops."""
        spool = self.restartable()
        committer = self.committers[spool]
        free = self.block(spool)
        waiting = Deferred.fromCoroutine(spool.commit(spool.draft(), envelope()))
        self.patch(committer, "_next_batch", failing(RuntimeError("no more")))
        free.set()
        self.assertRaises(OSError, self.wait, waiting)
        self.assertRaises(OSError, self.commit, spool)
        self.assertIn("restart", spool.trouble)
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
            waiting = Deferred.fromCoroutine(spool.commit(draft, envelope()))
            while len(content) > 99 and not (self.folder.contents / draft.id).exists():
                self.clock.pump()
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            free.set()
            found: set[str] = set()
            while draft.id not in found:
                self.wait(self.committers[spool].submit(Job()))
                found |= {message.id for message in self.wait(spool.lease_due(9))}
            self.wait(spool.stop())


class HeartbeatTests(SpoolTestCase):
    """A real commit, again and again."""

    def test_trouble(self) -> None:
        """Those who watch hear of a commit that fails, and of one that does not end."""
        spool = self.process()
        self.wait(spool.beat())
        self.assertEqual(spool.trouble, "")
        patch = self.patch(committer_module, "transaction", failing(of_sqlite("SQLITE_IOERR")))
        self.assertRaises(OSError, self.wait, spool.beat())
        self.assertIn("can't be written", spool.trouble)
        patch.restore()
        self.wait(spool.beat())
        self.assertEqual(spool.trouble, "")
        free = self.block(spool)
        beat = Deferred.fromCoroutine(spool.beat())
        self.clock.advance(heartbeat.SLOW + 1)
        self.assertIn("does not end", spool.trouble)
        free.set()
        self.wait(beat)
        self.assertEqual(spool.trouble, "")

    def test_no_room(self) -> None:
        """A disk with too little room for new mail is told of, as long as it is so."""
        spool = self.process()
        self.patch(Folder, "_free", lambda folder: 10)
        spool.reserve = 10**9
        self.wait(spool.beat())
        self.assertIn("new mail is refused", spool.trouble)
        spool.reserve = 1
        self.wait(spool.beat())
        self.assertEqual(spool.trouble, "")

    def test_it_goes_on(self) -> None:
        """A beat that fails is not the last."""
        spool = self.process()
        for error in (of_sqlite("SQLITE_FULL"), ZeroDivisionError()):
            patch = self.patch(committer_module, "transaction", failing(error))
            self.clock.advance(heartbeat.INTERVAL)
            self.wait(self.committers[spool].submit(Job()).addErrback(lambda _: None))
            patch.restore()
            self.flushLoggedErrors(ZeroDivisionError)
        before = self.beats()
        self.clock.advance(heartbeat.INTERVAL)
        self.wait(self.committers[spool].submit(Job()))
        self.assertEqual(self.beats(), before + 1)

    def beats(self) -> int:
        """How many there were."""
        connection = sqlite3.connect(self.folder.database)
        self.addCleanup(connection.close)
        return int(connection.execute("SELECT sum(beat) FROM owner").fetchone()[0])


class TakeOverTests(SpoolTestCase):
    """Taking over where something fails."""

    def test_one_that_cannot_be_buried(self) -> None:
        """It keeps no other dead owner's mail, nor leftover files, from being dealt with."""
        spool = self.process()
        dead = [owners.register(self.folder, queue_id.QueueIds(self.now)) for _ in range(3)]
        for owner in dead:
            owner.close()
        (self.folder.arrivals / f"{queue_id.encode(dead[0].number)}.1K8JQZ3T5V2XA").mkdir()
        for _ in range(3):
            self.wait(spool.take_over())
        self.assertEqual(owners.known(self.folder), {spool._owner.number, dead[0].number})

    def test_too_many_open_files(self) -> None:
        """A dead owner whose lock can't be opened is taken over from at the next look."""
        spool = self.process()
        dead = [owners.register(self.folder, queue_id.QueueIds(self.now)) for _ in range(2)]
        for owner in dead:
            owner.close()
        error = OSError(errno.EMFILE, "Too many open files")
        self.patch(os, "open", Once(os.open, error))
        for _ in range(2):
            self.wait(spool.take_over())
        self.assertEqual(owners.known(self.folder), {spool._owner.number})


class BellTests(SpoolTestCase):
    """The pipe that wakes a process."""

    def test_it_rings_again(self) -> None:
        """Neither an empty pipe, nor a bug in who is woken, nor its removal makes it deaf."""
        spool = self.process()
        (bell,) = self.clock.readers
        bell.doRead()
        spool.on_wake = failing(ZeroDivisionError())
        self.tools().enqueue(envelope(), [b"content"])
        bell.doRead()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        woken: list[str] = []
        spool.on_wake = lambda: woken.append("woken")
        spool._owner.bell.unlink()
        self.wait(spool.take_over())
        self.tools().enqueue(envelope(), [b"content"])
        (bell,) = self.clock.readers
        bell.doRead()
        self.assertEqual(woken, ["woken"])

    def test_nobody_can_be_woken(self) -> None:
        """What was committed is committed, whether or not others can be told."""
        spool = self.process()
        message = self.commit(spool)
        self.patch(Path, "iterdir", failing(OSError(errno.EMFILE, "Too many open files")))
        self.wait(spool.settle(settlement(message, self.now())))
        self.assertEqual([each.id for each in self.wait(spool.lease_due(9))], [message.id])
        self.wait(spool.release({message.id: 0.0}))


class ReleaseTests(SpoolTestCase):
    """What is given back."""

    def test_it_is_not_lost(self) -> None:
        """Where it can't be recorded it is with the next beat: nothing waits for a restart."""
        spool = self.process()
        message = self.commit(spool)
        patch = self.patch(committer_module, "transaction", failing(of_sqlite("SQLITE_FULL")))
        self.wait(spool.release({message.id: 0.0}))
        patch.restore()
        self.assertEqual(self.wait(spool.lease_due(9)), [])
        woken: list[str] = []
        spool.on_wake = lambda: woken.append("woken")
        self.wait(spool.beat())
        self.wait(self.committers[spool].submit(Job()))
        self.assertEqual(woken, ["woken"])
        self.assertEqual([each.id for each in self.wait(spool.lease_due(9))], [message.id])


class ReaderTests(SpoolTestCase):
    """Who looks does not hinder who delivers."""

    def test_a_long_look(self) -> None:
        """While one goes on, mail is read; another look is refused and waits for no thread."""
        spool = self.process()
        message = self.commit(spool)
        self.wait(spool.release({message.id: 0.0}))
        with spool._watcher._lock:
            (again,) = self.wait(spool.lease_due(1))
            self.assertEqual(self.content(again), b"content")
            self.assertIsNone(self.wait(spool.next_due()))
            self.assertRaises(BlockingIOError, spool.census)
        self.assertEqual(spool.census()["active"][0], 1)


class FirstDatabaseTests(SpoolTestCase):
    """The very first database is there whole, or not at all."""

    def test_empty_file(self) -> None:
        """What a loss of power may leave is no obstacle."""
        self.path.mkdir(parents=True)
        for name in ("queue.sqlite", "commit.lock"):
            (self.path / name).touch()
        self.commit(self.process())

    def test_nothing_half_made_stays(self) -> None:
        """Whatever fails while it is made, the next start succeeds, and no draft is left."""
        for call in ("open", "fsync", "close"):
            path = Path(self.mktemp())
            patch = self.patch(os, call, Once(getattr(os, call), OSError(errno.EIO, "no")))
            self.assertRaises(OSError, open_database, Folder(path))
            patch.restore()
            open_database(Folder(path)).close()
            self.assertEqual([each.name for each in path.glob(".*")], [])

    def test_a_database_that_is_gone(self) -> None:
        """Missing, empty, or without tables beside what only a spool in use has: refused."""
        self.wait(self.restartable().stop())
        kept = self.folder.database.read_bytes()

        def empty() -> None:
            self.folder.database.write_bytes(b"")

        def tableless() -> None:
            self.folder.database.unlink()
            connection = sqlite3.connect(self.folder.database)
            connection.execute("VACUUM")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.close()

        def fresh() -> None:
            with self.assertRaises(OSError):
                (self.path / "no spool" / "x").touch()
            other = Folder(Path(self.mktemp()))
            open_database(other).close()
            self.folder.database.write_bytes(other.database.read_bytes())

        for trace in ("content/1K8JQZ3T5V2XA", "srs.key", "peers/office.json"):
            for ruin in (self.folder.database.unlink, empty, tableless, fresh):
                if ruin is fresh and not trace.startswith("content"):
                    continue  # nothing is lost with these
                (self.path / trace).parent.mkdir(exist_ok=True)
                (self.path / trace).write_bytes(b"something")
                ruin()
                with self.subTest(trace=trace, ruin=ruin.__name__):
                    error = self.assertRaises(SpoolDamaged, self.restartable)
                    self.assertIn(str(self.path / trace), str(error))
                    self.assertIn("backup", str(error))
                    self.assertNotIn("\n", str(error))
                self.folder.database.write_bytes(kept)
                (self.path / trace).unlink()
        self.commit(self.process())

    def test_ballast_is_taken(self) -> None:
        """The names that are made beside the database are no reason to refuse it."""
        self.patch(Folder, "_free", lambda folder: BALLAST)
        spool = self.restartable()
        self.wait(spool.take_over())
        self.wait(spool.stop())
        self.commit(self.process())
