"""Indexes of the database that are damaged: they are made anew, and no mail waits for it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

from twisted.logger import LogLevel, capturedLogs

from mta.queued import EVERYWHERE
from mta.session import UNKNOWN_ORIGIN, Origin
from mta.spool import queue_id
from mta.spool.checking import Checker
from mta.spool.database import PAGE
from mta.spool.owner_rows import SUSPECT_DELAY
from mta.spool.sqlite import SqliteSpool
from tests.spool.cases import envelope
from tests.spool.peer_mail_contract import BROUGHT
from tests.spool.test_damaged_pages import PageTestCase

MESSAGES = 1500  # as many as make indexes of two levels
HALF = MESSAGES // 2
INNER = 2  # the first octet of a page of an index that leads to others


class IndexTests(PageTestCase):
    """A spool with half of its mail held, and one message that an owner died on."""

    def setUp(self) -> None:
        super().setUp()
        self.brought("first")
        [message] = self.due_now(1)  # the last one: higher numbers are free
        self.stop(self.spool)
        number = queue_id.decode(message.id)
        with closing(self.connection()) as connection:
            for table, column in (("message", "id"), ("content", "id"), ("recipient", "message")):
                multiply(connection, table, column, number)
            connection.execute(f"UPDATE message SET deaths = 1 WHERE id = {number}")
            connection.execute("UPDATE message SET released_by = 1")
            connection.execute(
                f"UPDATE recipient SET state = 'held', peer = 'office', held_domain = 'x.example'"
                f" WHERE message > {number + HALF}"
            )
            connection.execute(
                "INSERT INTO taken SELECT 'key ' || value, 1 FROM json_each(?)", (listed(2000),)
            )
        self.sent = {queue_id.encode(number + extra) for extra in range(MESSAGES + 1)}
        self.whole = self.settled()

    def connection(self) -> sqlite3.Connection:
        """The database, beside all processes."""
        return sqlite3.connect(self.folder.database, isolation_level=None)

    def brought(self, told_id: str, spool: SqliteSpool | None = None) -> None:
        """Take mail that a peer may bring again."""
        self.commit_of(spool or self.spool, replace(BROUGHT, told_id=told_id))

    def commit_of(self, spool: SqliteSpool, origin: Origin) -> str:
        """Commit a message of this origin; returns its id."""
        return self.wait(spool.commit(spool.draft(), envelope(), b"", origin)).id

    def indexes(self) -> dict[str, int]:
        """The first page of each index."""
        with closing(self.connection()) as connection:
            query = (
                "SELECT name, rootpage - 1 FROM sqlite_schema WHERE type = 'index' AND sql <> ''"
            )
            return dict(connection.execute(query).fetchall())

    def last_page(self, first: int) -> int:
        """The last page of an index, which may be its first."""
        header = self.whole[first * PAGE : first * PAGE + 12]
        return int.from_bytes(header[8:12], "big") - 1 if header[0] == INNER else first

    def damage_pages(self, *pages: int) -> None:
        """Put the whole database back, and overwrite these pages."""
        for path in self.folder.path.glob("queue.sqlite-*"):
            path.unlink()
        self.folder.database.write_bytes(self.whole)
        self.overwrite_pages(*pages)

    def faults(self) -> set[str]:
        """The lines of SQLite's own check, but for pages that are not used any more."""
        with closing(self.connection()) as connection:
            found = connection.execute("PRAGMA integrity_check").fetchall()
        lines = {line for (text,) in found for line in text.splitlines()}
        return {line for line in lines if "never used" not in line} - {"*** in database main ***"}

    def assert_all_leave(self) -> list[dict[str, Any]]:
        """All mail can be leased, and new mail is taken; returns the errors of the log."""
        with capturedLogs() as events:
            self.spool = self.process()
            self.clock.advance(SUSPECT_DELAY)
            self.wait(self.spool.take_over())
            leased: set[str] = set()
            while held := self.wait(
                self.spool.lease_held("office", {EVERYWHERE}, 1000, self.now() + 1)
            ):
                leased |= {message.id for message in held}
            self.assertEqual(len(leased), HALF)
            while due := self.wait(self.spool.lease_due(1000)):
                leased |= {message.id for message in due}
            self.assertLessEqual(self.sent, leased)
            self.brought("second")
            self.commit_of(self.spool, UNKNOWN_ORIGIN)
            self.stop(self.spool)
        return [event for event in events if event["log_level"] >= LogLevel.error]

    def test_each(self) -> None:
        """Whichever page is damaged, all mail leaves, and one line of the log says so."""
        indexes = self.indexes()
        self.assertEqual({*indexes}, {"schedule", "released", "suspect", "held", "taken_at"})
        for name, first in indexes.items():
            for page in sorted({first, self.last_page(first)}):
                with self.subTest(index=name, page=page):
                    self.damage_pages(page)
                    told = self.assert_all_leave()
                    self.assertEqual([event.get("index") for event in told], [name])
                    self.assertLessEqual(self.faults(), {"ok"})

    def test_lost_write(self) -> None:
        """A page that the disk did not write is one of an index that can be read, and wrong."""
        page = self.last_page(self.indexes()["schedule"])
        before = self.whole[page * PAGE : (page + 1) * PAGE]
        with closing(self.connection()) as connection:
            connection.execute(
                "UPDATE message SET due = 1.0 WHERE id = (SELECT max(id) FROM message)"
            )
        self.whole = self.settled().replace(self.whole_page(page), before)
        self.damage_pages()
        self.assertNotEqual(self.faults(), {"ok"})
        told = self.assert_all_leave()
        self.assertEqual({event.get("index") for event in told}, {*self.indexes()})
        self.assertEqual(self.faults(), {"ok"})

    def whole_page(self, page: int) -> bytes:
        """A page as it is now."""
        return self.settled()[page * PAGE : (page + 1) * PAGE]

    def test_check(self) -> None:
        """The check mends them as well, and gives the room of the old ones back."""
        self.damage_pages(*self.indexes().values())
        self.assertTrue([*Checker(self.path).findings()])
        found = [*Checker(self.path, repair=True).findings()]
        self.assertTrue(found)
        self.assertTrue(all(finding.repaired for finding in found), found)
        self.assertEqual(self.faults(), {"ok"})
        self.assertEqual([*Checker(self.path).findings()], [])


def multiply(connection: sqlite3.Connection, table: str, column: str, number: int) -> None:
    """Insert a message's rows of a table again, with the numbers that follow."""
    columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(f"{each} + extra" if each == column else each for each in columns)
    numbers = "(SELECT value AS extra FROM json_each(?))"
    connection.execute(
        f"INSERT INTO {table} SELECT {values} FROM {table}, {numbers} WHERE {column} = ?",
        (listed(MESSAGES), number),
    )


def listed(count: int) -> str:
    """The numbers from 1, as JSON."""
    return json.dumps([*range(1, count + 1)])
