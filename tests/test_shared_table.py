"""Small SQLite files that processes share."""

from __future__ import annotations

import sqlite3
import warnings
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.shared_table import SharedTable

SCHEMA = "CREATE TABLE IF NOT EXISTS word (text TEXT PRIMARY KEY);"


class SharedTableTests(SynchronousTestCase):
    """One file, and two that use it."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.path /= "words.sqlite"

    def words(self, table: SharedTable) -> list[str]:
        """What is in it."""
        select = "SELECT text FROM word"
        return [text for (text,) in table.change(lambda each: each.execute(select).fetchall())]

    def add(self, table: SharedTable, *words: str) -> None:
        """Add words in one transaction."""

        def insert(connection: sqlite3.Connection) -> None:
            for word in words:
                connection.execute("INSERT INTO word VALUES (?)", (word,))

        table.change(insert)

    def test_shared(self) -> None:
        """What one has committed the other sees; the file is for its owner alone."""
        first, second = SharedTable(self.path, SCHEMA), SharedTable(self.path, SCHEMA)
        self.assertFalse(self.path.exists())
        self.add(first, "a")
        self.add(second, "b")
        self.assertEqual(self.words(first), ["a", "b"])
        for path in self.path.parent.iterdir():
            self.assertEqual(path.stat().st_mode & 0o777, 0o600, path)

    def test_all_or_nothing(self) -> None:
        """A change that fails leaves nothing, and the table is of use as before."""
        table = SharedTable(self.path, SCHEMA)
        self.add(table, "a")
        error = self.assertRaises(OSError, self.add, table, "b", "a")
        self.assertIn(str(self.path), str(error))
        self.assertEqual(self.words(table), ["a"])

    def test_unusable(self) -> None:
        """A folder in its place, or what is no database, is an OSError that names it."""
        self.path.mkdir()
        self.assertRaises(OSError, self.words, SharedTable(self.path, SCHEMA))
        self.path.rmdir()
        self.path.write_bytes(b"no database" * 100)
        error = self.assertRaises(OSError, self.words, SharedTable(self.path, SCHEMA))
        self.assertIn("remove the file", str(error))

    def test_closed(self) -> None:
        """It is closed with the last reference."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table = SharedTable(self.path, SCHEMA)
            self.add(table, "a")
            del table
        self.assertEqual(caught, [])
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["words.sqlite"])
