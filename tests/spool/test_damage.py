"""Rows, files and pages that are damaged: one message is harmed, and all others go on."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from twisted.logger import LogLevel, capturedLogs

from mta.queued import Filter, Message, State
from mta.spool import queue_id
from mta.spool.checking import Checker
from mta.spool.database import PAGE, SpoolDamaged, open_database, verify
from mta.spool.folder import MIN_UNKNOWN_AGE
from tests.spool.cases import LARGE, SpoolTestCase, settlement

# What is done to one row, as SQL, with the message's number as ?1.
DAMAGE = (
    "UPDATE recipient SET local_part = CAST(x'ff' AS TEXT) WHERE message = ?1",
    "UPDATE recipient SET local_part = x'05' WHERE message = ?1",
    "UPDATE recipient SET local_part = '' WHERE message = ?1",
    "UPDATE recipient SET domain = '' WHERE message = ?1",
    "UPDATE recipient SET domain = 'a b.example' WHERE message = ?1",
    "UPDATE recipient SET domain = 'a.example' || char(13, 10) || 'DATA' WHERE message = ?1",
    "UPDATE recipient SET notify = 'SOMETIMES' WHERE message = ?1",
    "UPDATE recipient SET state = 'lost' WHERE message = ?1",
    "UPDATE recipient SET settled = 'not JSON' WHERE message = ?1",
    "UPDATE recipient SET settled = '[1]' WHERE message = ?1",
    "UPDATE recipient SET settled = '{}' WHERE message = ?1",
    "UPDATE recipient SET history = '[[\"x\", 1]]' WHERE message = ?1",
    "UPDATE recipient SET history = '5' WHERE message = ?1",
    "UPDATE recipient SET history = x'00' WHERE message = ?1",
    'UPDATE recipient SET history = \'[[1e999, "a", "b", "c"]]\' WHERE message = ?1',
    'UPDATE recipient SET history = \'[[NaN, "a", "b", "c"]]\' WHERE message = ?1',
    'UPDATE recipient SET history = \'[[1e15, "a", "b", "c"]]\' WHERE message = ?1',
    "DELETE FROM recipient WHERE message = ?1",
    "DELETE FROM content WHERE id = ?1",
    "UPDATE content SET data = 'text' WHERE id = ?1",
    "UPDATE content SET header = 'text' WHERE id = ?1",
    "UPDATE content SET header = x'00' WHERE id = ?1",
    "UPDATE content SET origin = 'text' WHERE id = ?1",
    "UPDATE content SET origin = '[]' WHERE id = ?1",
    "UPDATE content SET origin = x'7b7d' WHERE id = ?1",
    'UPDATE content SET origin = \'{"port": "x"}\' WHERE id = ?1',
    "UPDATE content SET data = x'00' WHERE id = ?1",
    "UPDATE message SET local_part = x'ff' WHERE id = ?1",
    "UPDATE message SET domain = char(10) WHERE id = ?1",
    "UPDATE message SET body = '9BIT' WHERE id = ?1",
    "UPDATE message SET envid = CAST(x'c328' AS TEXT) WHERE id = ?1",
    "UPDATE message SET size = 'big' WHERE id = ?1",
    "UPDATE message SET size = -1 WHERE id = ?1",
    "UPDATE message SET attempts = 'many' WHERE id = ?1",
    "UPDATE message SET in_file = 1 WHERE id = ?1",
    "UPDATE message SET shift = 'x' WHERE id = ?1",
    "UPDATE message SET shift = 9e999 WHERE id = ?1",
    "UPDATE message SET shift = -9e999 WHERE id = ?1",
    "UPDATE message SET shift = 1e300 WHERE id = ?1",
    "UPDATE message SET shift = -1e12 WHERE id = ?1",
    "UPDATE message SET due = 'soon' WHERE id = ?1",
    "UPDATE message SET due = x'00' WHERE id = ?1",
    "UPDATE message SET due = 1e308 WHERE id = ?1",
    "UPDATE message SET due = 9223372036854775807 WHERE id = ?1",
    "UPDATE message SET due = NULL WHERE id = ?1",
)
# What is overwritten of a database, which is none any more after the first two.
OVERWRITTEN = (
    (0, 100),
    (100, PAGE),
    *((page * PAGE, (page + 1) * PAGE) for page in range(1, 60, 7)),
    (PAGE, None),
)
STANDING_STILL = tuple(statement for statement in DAMAGE if "SET due" in statement)


class DamageTestCase(SpoolTestCase):
    """A spool in which one message of three is damaged."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.process()

    def due_now(self, count: int = 3, content: bytes = b"content") -> list[Message]:
        """Messages that are due, and leased to nobody."""
        messages = [self.commit(self.spool, content) for _ in range(count)]
        self.wait(self.spool.release({message.id: 0.0 for message in messages}))
        return messages

    def damage(self, statement: str, message: Message) -> None:
        """Change a message's rows, against all rules."""
        with closing(sqlite3.connect(self.folder.database, isolation_level=None)) as connection:
            if "due = NULL" in statement:
                connection.execute("PRAGMA writable_schema = ON")
                connection.execute(
                    "UPDATE sqlite_schema SET sql = replace(sql, 'due REAL NOT NULL', 'due REAL')"
                )
                connection.execute("PRAGMA writable_schema = RESET")
                (version,) = connection.execute("PRAGMA schema_version").fetchone()
                connection.execute(f"PRAGMA schema_version = {version + 1}")
            connection.execute(statement, (queue_id.decode(message.id),))

    def leased(self) -> Sequence[str]:
        """The ids of what is leased now."""
        return [message.id for message in self.wait(self.spool.lease_due(10))]


class RowTests(DamageTestCase):
    """Whatever is wrong with a row."""

    def test_put_aside(self) -> None:
        """The message is put on hold and told of once; the others are delivered."""
        for statement in DAMAGE:
            with self.subTest(statement=statement):
                first, bad, last = self.due_now()
                self.damage(statement, bad)
                with capturedLogs() as events:
                    self.wait(self.spool.postpone({"mx:x.example": self.now() + 9}, 1.0, 1.0))
                    leased = self.leased()
                    self.wait(self.spool.take_over())
                    self.assertEqual(self.leased(), [])
                self.assertEqual(leased, [first.id, last.id])
                told = [event for event in events if event.get("queue_id") == bad.id]
                self.assertEqual([event["log_level"] for event in told], [LogLevel.error])
                self.assertTrue(told[0]["reason"].isprintable(), told)
                self.assertIsNone(self.wait(self.spool.next_due()))
                self.assert_shown(bad)
                for message in (first, last):
                    self.wait(self.spool.remove([message.id], 0.0))

    def assert_shown(self, bad: Message) -> None:
        """The tools list it as what it is, and delete it."""
        tools = self.tools()
        entries = {entry.message.id: entry for entry in tools.find(Filter())}
        self.assertEqual(entries[bad.id].state, "damaged")
        self.assertTrue(entries[bad.id].reason)
        self.assertEqual([e.message.id for e in tools.find(Filter(state="damaged"))], [bad.id])
        self.assertEqual(tools.delete([bad.id]), [bad.id])

    def test_before_it_was_found(self) -> None:
        """The tools show what nobody has tried since it was damaged."""
        for statement in DAMAGE:
            if statement not in STANDING_STILL:
                with self.subTest(statement=statement):
                    first, bad, last = self.due_now()
                    self.damage(statement, bad)
                    states = [entry.state for entry in self.tools().find(Filter())]
                    self.assertEqual(states, ["waiting", "damaged", "waiting"])
                    self.tools().delete([first.id, bad.id, last.id])

    def test_due_for_ever(self) -> None:
        """What is due since before all time is due, and says so."""
        (message,) = self.due_now(1)
        self.damage("UPDATE message SET due = -9e999 WHERE id = ?1", message)
        self.assertEqual(self.wait(self.spool.next_due()), -math.inf)
        self.assertEqual(self.leased(), [message.id])

    def test_repaired(self) -> None:
        """What was repaired by hand is tried again once it is released."""
        (message,) = self.due_now(1)
        self.damage("UPDATE message SET body = '9BIT' WHERE id = ?1", message)
        self.assertEqual(self.leased(), [])
        self.tools().release([message.id])
        self.assertEqual(self.leased(), [])
        self.damage("UPDATE message SET body = '8BITMIME' WHERE id = ?1", message)
        self.tools().release([message.id])
        self.assertEqual(self.leased(), [message.id])

    def test_files(self) -> None:
        """Content that is gone, or was cut short, is not delivered."""
        for ruin in (os.unlink, lambda path: os.truncate(path, 10)):
            first, bad, last = self.due_now(content=LARGE * 2)
            ruin(self.folder.content(queue_id.decode(bad.id)))
            self.assertEqual(self.leased(), [first.id, last.id])
            self.assert_shown(bad)
            self.tools().delete([first.id, last.id])

    def test_held_and_by_id(self) -> None:
        """Neither a peer nor who asks for it by its id gets it."""
        _, bad, _ = self.due_now()
        self.damage("DELETE FROM recipient WHERE message = ?1", bad)
        self.assertEqual(self.wait(self.spool.lease([bad.id])), [])

    def test_owners_that_never_were(self) -> None:
        """What is leased to nobody that exists is free again in a moment."""
        (message,) = self.due_now(1)
        self.damage("UPDATE message SET owner = 12345, due = 9e999 WHERE id = ?1", message)
        self.wait(self.spool.take_over())
        self.wait(self.spool.take_over())
        self.assertEqual(self.leased(), [message.id])


class FileTests(DamageTestCase):
    """Files that nobody knows."""

    def test_old_ones_are_removed(self) -> None:
        """After some time, and never one that a draft or a message has."""
        message = self.commit(self.spool, LARGE * 2)
        draft = self.spool.draft()
        self.wait(draft.write(LARGE * 2))
        self.wait(draft.write(LARGE * 2))
        self.wait(draft.finish())
        sealed = self.folder.content(draft.number)
        unknown = self.file(self.folder.contents / "1K8JQZ3T5V2XA")
        abandoned = self.file(self.folder.arrivals / "1K8JQZ3T5V2XA.1K8JQZ3T5V2XB")
        strange = self.file(self.folder.contents / "notes.txt")
        for age in (0, 2 * MIN_UNKNOWN_AGE):
            for path in (*self.folder.contents.iterdir(), *self.folder.arrivals.iterdir()):
                os.utime(path, (self.now() - age,) * 2)
            self.spool._taking_over._looks = 0
            self.wait(self.spool.take_over())
            self.assertEqual(unknown.exists(), not age)
            self.assertEqual(abandoned.exists(), not age)
        self.assertTrue(strange.exists())
        self.assertEqual(self.content(message), LARGE * 2)
        self.assertTrue(sealed.exists())
        draft.discard()

    def file(self, path: Path) -> Path:
        """A file."""
        path.write_bytes(b"content")
        return path

    def test_strange_names(self) -> None:
        """Files that are none of ours, in any of our folders, stop nothing."""
        for folder in (self.folder.contents, self.folder.arrivals, self.folder.owners):
            for name in ("x", "x.lock", "x.y.z", ".hidden", "1K8JQZ3T5V2XA.x", "é.wake"):
                self.file(folder / name)
        self.wait(self.spool.take_over())
        self.commit(self.spool, LARGE * 2)
        self.assertEqual(len(list(self.tools().find(Filter()))), 1)

    def test_what_cannot_be_removed(self) -> None:
        """It is told once a minute, and keeps nothing else from being removed."""
        messages = [self.commit(self.spool, LARGE * 2) for _ in range(20)]
        stuck = self.folder.content(queue_id.decode(messages[0].id))
        stuck.unlink()
        (stuck / "x").mkdir(parents=True)
        with capturedLogs() as events:
            for message in messages:
                self.wait(self.spool.settle(settlement(message, 0.0, state=State.DONE)))
            for _ in range(20):
                self.wait(self.spool.take_over())
        self.assertEqual(self.files(), [stuck.name])
        self.assertEqual(len(events), 1, events)
        (stuck / "x").rmdir()
        stuck.rmdir()


class DatabaseTests(SpoolTestCase):
    """What is not in a row."""

    RUINS = (
        "DROP TABLE recipient",
        "DROP TABLE content",
        "DROP TABLE owner",
        "DROP TABLE clock",
        "DROP TABLE leftover",
        "ALTER TABLE message RENAME COLUMN ret TO other",
        "PRAGMA user_version = -5",
    )
    CLOCKS = (
        "UPDATE clock SET wall = 'x'",
        "UPDATE clock SET wall = 9e999",
        "UPDATE clock SET uptime = x'ff'",
        "UPDATE clock SET boot = CAST(x'ff' AS TEXT)",
        "DELETE FROM clock",
    )

    def ruin(self, statement: str) -> None:
        """Change the database of a spool that nobody uses."""
        with closing(sqlite3.connect(self.folder.database, isolation_level=None)) as connection:
            connection.execute(statement)

    def test_tables(self) -> None:
        """Without a table or a column nothing starts, and one line says why."""
        self.wait(self.restartable().stop())
        whole = self.folder.database.read_bytes()
        for statement in self.RUINS:
            with self.subTest(statement=statement):
                self.ruin(statement)
                for attempt in (open_database, verify):
                    error = self.assertRaises(SpoolDamaged, attempt, self.folder)
                    self.assertIn("restore it from a backup", str(error))
                for path in self.folder.path.glob("queue.sqlite-*"):
                    path.unlink()
                self.folder.database.write_bytes(whole)
        open_database(self.folder).close()

    def test_octets(self) -> None:
        """Whatever is overwritten, it is refused in one line, or what is read of it is true."""
        spool, sent = self.restartable(), {}
        for number in range(200):
            body = b"%d " % number * 500
            sent[self.commit(spool, body).id] = body
        self.wait(spool.stop())
        whole = self.folder.database.read_bytes()
        self.assertGreater(len(whole), PAGE * 40)
        refused = []
        for start, end in OVERWRITTEN:
            octets = bytearray(whole)
            octets[start:end] = b"\xa5" * len(octets[start:end])
            refused.append(self.is_refused(octets, sent))
        refused.append(self.is_refused(whole[: len(whole) // 2], sent))
        self.assertEqual([refused[0], refused[1], refused[-1]], [True] * 3)
        self.assertIn(False, refused)

    def is_refused(self, octets: bytes, sent: Mapping[str, bytes]) -> bool:
        """Tell whether a process does not start with a database, or leases nothing.

        It says why, then.
        """
        for path in self.folder.path.glob("queue.sqlite-*"):
            path.unlink()
        self.folder.database.write_bytes(octets)
        try:
            spool = self.restartable()
        except SpoolDamaged as error:
            self.assertIn("restore it from a backup", str(error))
            return True
        try:
            for message in self.wait(spool.lease_due(len(sent))):
                with contextlib.suppress(OSError):
                    self.assertEqual(self.content(message), sent[message.id])
        except SpoolDamaged:
            return True
        finally:
            self.wait(spool.stop())
        return False

    def test_clock(self) -> None:
        """A look at the clock that can't be right tells nothing, and keeps nobody from starting."""
        for statement in self.CLOCKS:
            with self.subTest(statement=statement):
                self.wait(self.restartable().stop())
                self.ruin(statement)
                spool = self.restartable()
                self.commit(spool)
                self.wait(spool.stop())

    def test_standing_holds(self) -> None:
        """Where they can't be read no mail is taken, and the log and the check say why."""
        for text in ("[{", '{"a": 5}', "5"):
            spool = self.restartable()
            (self.folder.path / "holds.json").write_text(text)
            with capturedLogs() as events:
                for _ in range(3):
                    self.assertRaises(OSError, self.commit, spool)
            self.assertEqual(["holds.json" in event["error"] for event in events], [True])
            (finding,) = Checker(self.path).findings()
            self.assertIn("put on hold again", finding.problem)
            self.wait(spool.stop())
        (self.folder.path / "holds.json").unlink()
        self.commit(self.process())
