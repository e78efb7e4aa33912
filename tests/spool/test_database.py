"""Databases that the start refuses, or brings to today's format."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from mta.session import UNKNOWN_ORIGIN
from mta.spool import folder, schema
from mta.spool.checking import Checker
from mta.spool.database import SpoolDamaged, SpoolTooNew, open_database
from mta.spool.folder import BALLAST, Folder
from tests.spool.cases import (
    HEADER,
    LARGE,
    Once,
    SpoolTestCase,
)


class DatabaseTests(SpoolTestCase):
    """The start, on what it finds."""

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

    def older(self) -> Sequence[str]:
        """Make the spool one of version 4, with a small and a large message; their ids."""
        spool = self.restartable()
        messages = [self.commit(spool, HEADER + b"\xff"), self.commit(spool, HEADER + LARGE)]
        self.wait(spool.stop())
        with contextlib.closing(sqlite3.connect(self.folder.database)) as connection:
            connection.executescript(
                "DELETE FROM content WHERE id IN (SELECT id FROM message WHERE in_file);"
                " ALTER TABLE content DROP COLUMN header;"
                " ALTER TABLE content DROP COLUMN origin;"
                " DROP INDEX released; ALTER TABLE message RENAME COLUMN released_by TO put_by;"
                " CREATE INDEX put_by ON message (put_by) WHERE put_by IS NOT NULL;"
                " DROP INDEX held; ALTER TABLE recipient DROP COLUMN offered;"
                " CREATE INDEX held ON recipient (peer, message) WHERE state = 'held';"
                " PRAGMA user_version = 4;"
            )
        return [message.id for message in messages]

    def test_mail_of_an_older_version(self) -> None:
        """Its content is what it was, and its header section is found when it is read."""
        ids = self.older()
        messages = self.wait(self.process().lease_due(10))
        self.assertEqual({message.id for message in messages}, {*ids})
        for message, body in zip(messages, (b"\xff", LARGE), strict=True):
            self.assertEqual(self.content(message), HEADER + body)
            self.assertEqual(self.halves(message), (HEADER, body))
            self.assertEqual(message.content.size, len(HEADER + body))
            self.assertEqual(message.origin, UNKNOWN_ORIGIN)
        self.assertEqual([*Checker(self.path).findings()], [])

    def test_an_older_program(self) -> None:
        """A program that knows version 4 refuses the spool of today, and changes nothing."""
        self.older()
        self.wait(self.restartable().stop())
        self.patch(schema, "VERSION", 4)
        error = self.assertRaises(SpoolTooNew, self.process)
        self.assertIn("format 6, this one knows 4", str(error))

    def test_older_version(self) -> None:
        """A spool of version 1 becomes one of today, with all that is in it."""
        self.wait(self.restartable().stop())
        with contextlib.closing(sqlite3.connect(self.folder.database)) as connection:
            connection.executescript(
                "DROP INDEX released; DROP INDEX suspect; DROP TABLE owner; DROP TABLE clock;"
                " ALTER TABLE message DROP COLUMN released_by;"
                " ALTER TABLE message DROP COLUMN deaths;"
                " ALTER TABLE message DROP COLUMN reason;"
                " ALTER TABLE message DROP COLUMN shift;"
                " ALTER TABLE message DROP COLUMN outside;"
                " ALTER TABLE content DROP COLUMN header;"
                " ALTER TABLE content DROP COLUMN origin;"
                " DROP INDEX held; ALTER TABLE recipient DROP COLUMN offered;"
                " CREATE INDEX held ON recipient (peer, message) WHERE state = 'held';"
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


class FirstDatabaseTests(SpoolTestCase):
    """The very first database is there whole, or not at all."""

    def test_empty_file(self) -> None:
        """What a loss of power may leave is no obstacle."""
        self.path.mkdir(parents=True)
        for name in ("queue.sqlite", "commit.lock"):
            (self.path / name).touch()
        self.commit(self.process())

    def test_a_folder_that_was_there(self) -> None:
        """Its own name is synced by the first to use it: whoever made it may not have."""
        synced: list[Path] = []
        self.patch(folder, "sync", synced.append)
        self.path.mkdir(parents=True)
        for _ in range(2):
            self.folder.make()
        self.assertEqual(synced.count(self.path.parent), 1)

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


class ReaderTests(SpoolTestCase):
    """Who looks does not hinder who delivers."""

    def test_a_long_look(self) -> None:
        """While one goes on, mail is read; another look is refused and waits for no thread."""
        spool = self.process()
        message = self.commit(spool)
        self.wait(spool.release({message.id: 0.0}))
        with spool._reading._counting._lock:
            (again,) = self.wait(spool.lease_due(1))
            self.assertEqual(self.content(again), b"content")
            self.assertIsNone(self.wait(spool.next_due()))
            self.assertRaises(BlockingIOError, spool.counts_by_state)
        self.assertEqual(spool.counts_by_state()["active"][0], 1)
