"""Tables that all processes share, as files and in a database."""

from __future__ import annotations

import errno
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.shared_tables.forms import TableForm, TableSet
from mta.shared_tables.interfaces import ISharedTables, IStatements, ITableStore
from tests.shared_tables.stores import DatabaseStores, FolderStores

try:
    import psycopg

    from mta.spool.postgres import shared_tables
except ImportError:  # the extra is not installed
    pass

WORDS = TableSet(
    "words", (TableForm("word", "word TEXT PRIMARY KEY, until DOUBLE PRECISION", "until"),)
)


def words(tables: ISharedTables) -> list[str]:
    """What is in it."""
    select = "SELECT word FROM word ORDER BY word"
    return [word for (word,) in tables.change(lambda each: each.execute(select).fetchall())]


def add(tables: ISharedTables, *words: str) -> None:
    """Add words in one transaction."""
    tables.change(lambda each: insert(each, *words))


def insert(statements: IStatements, *words: str) -> None:
    """Add words one by one."""
    verifyObject(IStatements, statements)
    for word in words:
        statements.execute("INSERT INTO word VALUES (?, ?)", (word, 0.5))


class TablesContract:
    """One set of tables, and two processes that use it."""

    def test_interfaces(self) -> None:
        """Both are what their users ask for."""
        verifyObject(ITableStore, self.store())
        verifyObject(ISharedTables, self.store().open(WORDS))

    def test_shared(self) -> None:
        """What one has committed the other sees."""
        first, second = self.store().open(WORDS), self.store().open(WORDS)
        add(first, "a")
        add(second, "b")
        self.assertEqual(words(first), ["a", "b"])
        self.assertTrue(first.exists)

    def test_several(self) -> None:
        """A statement for each of several rows; what is counted is counted."""
        tables = self.store().open(WORDS)
        rows = [("a", 1.0), ("b", 2.0), ("c", 3.0)]
        statement = "INSERT INTO word VALUES (?, ?)"
        tables.change(lambda each: each.execute_each(statement, rows))
        delete = "DELETE FROM word WHERE until < ?"
        self.assertEqual(tables.change(lambda each: each.execute(delete, (2.5,)).rowcount), 2)
        self.assertEqual(words(tables), ["c"])

    def test_all_or_nothing(self) -> None:
        """A change that fails leaves nothing, and the table is of use as before."""
        tables = self.store().open(WORDS)
        add(tables, "a")
        error = self.assertRaises(OSError, add, tables, "b", "a")
        self.assertIn(self.place(), str(error))
        self.assertEqual(words(tables), ["a"])

    def test_raised(self) -> None:
        """What the function raises is raised, and nothing of it stays."""
        tables = self.store().open(WORDS)

        def fail(statements: IStatements) -> None:
            insert(statements, "a")
            raise ValueError("no")

        self.assertRaises(ValueError, tables.change, fail)
        self.assertEqual(words(tables), [])


class FileTests(TablesContract, FolderStores, SynchronousTestCase):
    """A file in a folder."""

    def path(self) -> Path:
        """The file."""
        return self.folder / "words.sqlite"

    def place(self) -> str:
        """The name of the place in errors."""
        return str(self.path())

    def test_none(self) -> None:
        """There is no file before something is changed; it is for its owner alone."""
        tables = self.store().open(WORDS)
        self.assertFalse(tables.exists)
        self.assertFalse(self.path().exists())
        add(tables, "a")
        for path in self.folder.iterdir():
            self.assertEqual(path.stat().st_mode & 0o777, 0o600, path)

    def test_not_looked_at(self) -> None:
        """A file that can't be looked at may be there; using it says what is wrong."""
        error = OSError(errno.EIO, "Input/output error")
        with patch.object(Path, "stat", side_effect=error):
            self.assertTrue(self.store().open(WORDS).exists)

    def test_unusable(self) -> None:
        """A folder in its place, or what is no database, is an OSError that names it."""
        self.path().mkdir()
        self.assertRaises(OSError, words, self.store().open(WORDS))
        self.path().rmdir()
        self.path().write_bytes(b"no database" * 100)
        error = self.assertRaises(OSError, words, self.store().open(WORDS))
        self.assertIn("remove the file", str(error))

    def test_no_memory(self) -> None:
        """Where SQLite has none, which Python raises as its own, it is an OSError as others."""
        tables = self.store().open(WORDS)
        add(tables, "a")

        def fail(statements: IStatements) -> None:
            insert(statements, "b")
            raise MemoryError

        error = self.assertRaises(OSError, tables.change, fail)
        self.assertEqual((error.errno, error.filename), (errno.ENOMEM, str(self.path())))
        self.assertEqual(words(tables), ["a"])

    def test_closed(self) -> None:
        """It is closed with the last reference."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tables = self.store().open(WORDS)
            add(tables, "a")
            del tables
        self.assertEqual(caught, [])
        self.assertEqual([path.name for path in self.folder.iterdir()], ["words.sqlite"])


class DatabaseTests(TablesContract, DatabaseStores, SynchronousTestCase):
    """A database."""

    def place(self) -> str:
        """The name of the place in errors."""
        return "postgresql://"

    def test_at_once(self) -> None:
        """Nodes that change it at once wait for each other, also when they make it."""
        stores = [self.store().open(WORDS) for _ in range(4)]
        with ThreadPoolExecutor(len(stores)) as pool:
            list(pool.map(self.count_up, stores))
        [[counted]] = (
            self.store()
            .open(WORDS)
            .change(lambda each: each.execute("SELECT until FROM word").fetchall())
        )
        self.assertEqual(counted, 40.0)

    def count_up(self, tables: ISharedTables) -> None:
        """Read a number, and write a higher one, ten times."""
        for _ in range(10):
            tables.change(self.count_one)

    def count_one(self, statements: IStatements) -> None:
        """Do it once."""
        found = statements.execute("SELECT until FROM word").fetchone()
        statements.execute(
            "INSERT INTO word VALUES (?, ?) ON CONFLICT (word)"
            " DO UPDATE SET until = excluded.until",
            ("number", found[0] + 1.0 if found else 1.0),
        )

    def test_frozen(self) -> None:
        """A node that stands still in the middle of a change keeps others waiting for seconds."""
        self.patch(shared_tables, "_SETTINGS", shared_tables._SETTINGS.replace("'2s'", "'50ms'"))
        stuck, other = self.store().open(WORDS), self.store().open(WORDS)
        add(stuck, "a")
        error = self.assertRaises(
            OSError, stuck.change, lambda each: insert(each, "b") or words(other)
        )
        self.assertIn("lock timeout", str(error))
        self.assertEqual(words(other), ["a"])

    def test_broken(self) -> None:
        """A connection that broke is made anew; a database that is away is an OSError."""
        tables = self.store().open(WORDS)
        add(tables, "a")
        [[pid]] = tables.change(lambda each: each.execute("SELECT pg_backend_pid()").fetchall())
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        self.assertEqual(words(tables), ["a"])
        away = shared_tables.DatabaseTables(shared_tables.Server("postgresql:///x?host=/nowhere"))
        self.assertRaises(OSError, words, away.open(WORDS))
