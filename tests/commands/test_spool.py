"""``mta spool``, and ``mta queue`` where something is damaged."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing

from mta.access.account_table import TABLES
from mta.shared_tables.files import TableFolder
from mta.spool import owners, queue_id
from mta.spool.folder import Folder
from tests.commands.test_queue import QueueCase
from tests.shared_tables.stores import DatabaseStores
from tests.spool.test_damage import DAMAGE, STANDING_STILL

UNKNOWN = "1K8JQZ3T5V2XA"
SUSPEND = ("INSERT INTO suspended VALUES (?, ?, ?)", ("bob", 0.5, "too much"))
LARGE = b"Subject: x\r\n\r\n" + b"x" * 400_000


class SpoolCase(QueueCase):
    """A spool in which things are ruined by hand."""

    def change(self, statement: str, name: str = UNKNOWN) -> None:
        """Change rows, against all rules."""
        with closing(sqlite3.connect(self.spool / "queue.sqlite", isolation_level=None)) as opened:
            opened.execute(statement, (queue_id.decode(name),))

    def check(self, *options: str) -> tuple[int, list[str]]:
        """The status of ``mta spool check``, and the lines that it prints."""
        status, output, errors = self.run_command("spool", "check", *options)
        self.assertNotIn("Traceback", errors)
        self.assertEqual(bool(status), bool(errors))
        return status, output.splitlines()


class CheckTests(SpoolCase):
    """``mta spool check``."""

    def test_all_is_well(self) -> None:
        """Nothing is said of a spool with mail in it, small and large."""
        self.enqueue()
        self.enqueue(content=LARGE)
        self.assertEqual(self.check(), (0, []))

    def test_damaged(self) -> None:
        """Each damaged message is named with what is wrong, and the others are not."""
        for statement in DAMAGE:
            if "due = NULL" in statement:
                continue  # the tables do not take it
            with self.subTest(statement=statement):
                good, bad = self.enqueue(), self.enqueue()
                self.change(statement, bad)
                status, lines = self.check()
                self.assertEqual(status, 1)
                self.assertIn(bad, "".join(lines))
                self.assertNotIn(good, "".join(lines))
                repaired, _ = self.check("--repair")
                self.assertEqual(repaired, statement not in STANDING_STILL)
                self.succeed("queue", "delete", good, bad)
                self.assertEqual(self.check("--repair"), self.check("--repair"))

    def test_files(self) -> None:
        """What nobody knows is removed when it is old; other files are only named."""
        large = self.enqueue(content=LARGE)
        for name in (f"content/{UNKNOWN}", f"incoming/{UNKNOWN}.1K8JQZ3T5V2XB", "content/notes"):
            (self.spool / name).write_bytes(b"x")
        status, lines = self.check("--repair")
        self.assertEqual((status, len(lines)), (1, 3), lines)
        for path in (*(self.spool / "content").iterdir(), *(self.spool / "incoming").iterdir()):
            os.utime(path, (1.0, 1.0))
        status, lines = self.check("--repair")
        self.assertEqual(sum(line.endswith("(repaired)") for line in lines), 2, lines)
        status, lines = self.check()
        self.assertEqual((status, lines), (1, ["content/notes: it is no file of the spool"]))
        self.assertIn(b"xxx", self.content(self.entries()[0]))
        self.assertEqual([entry.message.id for entry in self.entries()], [large])

    def test_rows(self) -> None:
        """Rows without a message, and leases of nobody."""
        name = self.enqueue()
        self.change("INSERT INTO content (id, data) VALUES (?1, x'00')")
        self.change(
            "INSERT INTO recipient VALUES (?1, 0, 'a', 'b', '', '', 'done', '', '', '', '', 0)"
        )
        self.change("UPDATE message SET owner = 5, due = 9e999 WHERE id = ?1", name)
        _, lines = self.check("--json")
        found = [json.loads(line) for line in lines]
        self.assertEqual(sorted(each["where"] for each in found), sorted([UNKNOWN, UNKNOWN, name]))
        self.assertEqual(self.check("--repair")[0], 0)
        self.assertEqual(self.check(), (0, []))

    def test_index(self) -> None:
        """An index that lost an entry is made again."""
        name = self.enqueue()
        with closing(sqlite3.connect(self.spool / "queue.sqlite", isolation_level=None)) as opened:
            opened.execute("PRAGMA writable_schema = ON")
            (sql,) = opened.execute(
                "SELECT sql FROM sqlite_schema WHERE name = 'schedule'"
            ).fetchone()
            opened.execute("DROP INDEX schedule")
            opened.execute("CREATE INDEX schedule ON message (due, owner) WHERE id < 0")
            opened.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'schedule'", (sql,))
        self.assertEqual(self.check()[0], 1)
        self.assertEqual(self.check("--repair")[0], 0)
        self.assertEqual(self.check(), (0, []))
        self.succeed("queue", "delete", name)

    def test_gone(self) -> None:
        """A database that is missing beside content is one line, and so is none at all."""
        self.enqueue(content=LARGE)
        for path in self.spool.glob("queue.sqlite*"):
            path.unlink()
        status, lines = self.check()
        self.assertEqual((status, len(lines)), (1, 1), lines)
        self.assertIn("backup", lines[0])


class QueueDamageTests(SpoolCase):
    """``mta queue`` with a damaged message."""

    def test_shown_and_deleted(self) -> None:
        """It is listed, shown and deleted, by its id and by its state, without a traceback."""
        for statement in DAMAGE:
            if statement in STANDING_STILL:
                continue  # whoever leases next finds it
            with self.subTest(statement=statement):
                good, bad = self.enqueue(), self.enqueue()
                self.change(statement, bad)
                self.assertRegex(self.succeed("queue", "list"), rf"(?m)^{bad} .* damaged")
                for line in self.succeed("queue", "list", "--json").splitlines():
                    entry = json.loads(line)
                    self.assertEqual(entry["state"] == "damaged", entry["id"] == bad)
                self.assertRegex(self.succeed("queue", "show", bad), r"(?m)^because +\w")
                json.loads(self.succeed("queue", "show", bad, "--json"))
                self.assertEqual(
                    self.succeed("queue", "delete", "--state", "damaged"), "1 message deleted\n"
                )
                self.succeed("queue", "delete", good)

    def test_bounced(self) -> None:
        """Nobody can tell whom to tell: it stays, and the others go."""
        good, bad = self.enqueue(), self.enqueue()
        self.change("UPDATE message SET body = '9BIT' WHERE id = ?1", bad)
        self.run_command("queue", "bounce", good)
        self.assertNotIn(good, [entry.message.id for entry in self.entries()])
        self.assertIn(bad, [entry.message.id for entry in self.entries()])

    def test_exported(self) -> None:
        """Its content is written as it is, where there is any."""
        for content in (b"Subject: x\r\n\r\nhello\r\n", LARGE):
            name = self.enqueue(content=content)
            self.change("UPDATE message SET body = '9BIT' WHERE id = ?1", name)
            self.assertEqual(self.succeed("spool", "export", name), content.decode())
        status, _, errors = self.run_command("spool", "export", UNKNOWN)
        self.assertEqual((status, errors.count("\n")), (1, 1))
        (self.spool / "content" / name).unlink()
        status, _, errors = self.run_command("spool", "export", name)
        self.assertEqual((status, errors.count("\n")), (1, 1), errors)


class CopyTests(SpoolCase):
    """``mta spool copy``."""

    def test_to_a_database(self) -> None:
        """Mail and what is counted go over; not beside a server, nor a second time."""
        database = DatabaseStores()
        database.setUp()
        self.addCleanup(database.doCleanups)
        name, url, tables = self.enqueue(), database.url, database.store()
        accounts = TableFolder(self.spool)
        accounts.open(TABLES).change(lambda each: each.execute(*SUSPEND))
        with closing(owners.register(Folder(self.spool), queue_id.QueueIds(time.time))):
            _, _, errors = self.run_command("spool", "copy", str(self.spool), url)
            self.assertIn("a server works with", errors)
        self.assertIn("1 message copied", self.succeed("spool", "copy", str(self.spool), url))
        select = 'SELECT "user", reason FROM suspended'
        found = tables.open(TABLES).change(lambda each: each.execute(select).fetchall())
        self.assertEqual(found, [("bob", "too much")])
        _, _, errors = self.run_command("spool", "copy", str(self.spool), url)
        self.assertIn("has messages already", errors)
        self.assertIn(name, self.succeed("queue", "list"))
