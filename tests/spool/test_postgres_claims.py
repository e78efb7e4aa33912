"""What claims of messages cost in PostgreSQL."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Envelope, Mailbox, Recipient
from mta.queued import IContent
from mta.spool import queue_id
from mta.spool.content import MemoryContent
from mta.spool.leases import Waiting
from mta.spool.loading import ContentKey
from mta.spool.rows import Arrival
from tests.spool.postgres import PostgresTestCase

try:
    from mta.spool.postgres import leases, loading, rows, schema
    from mta.spool.postgres.cursor import MAX_HELD, MAX_PAUSE, Cursor, Cursors
    from mta.spool.postgres.server import FEW_ROWS, Connection, Server
except ImportError:  # the extra is not installed, and `PostgresTestCase` skips
    pass

COUNT = 300


def content(key: ContentKey) -> IContent:
    """The content of a message, which is not read."""
    return MemoryContent(b"\r\n", bytes(key.size - 2), is_ascii=True)


class CursorTests(SynchronousTestCase):
    """Looks from the beginning take a small part of the time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.cursor = Cursor(self.clock)

    def look(self, seconds: float, place: Any) -> Any:
        """Look for so long, and get to a place; returns where it began."""
        start = self.cursor.begin()
        self.clock.advance(seconds)
        self.cursor.end(start, place)
        return start

    def test_quick(self) -> None:
        """While they take no time, each begins at the beginning."""
        self.assertIsNone(self.look(0.001, 5))
        self.assertIsNone(self.look(0.001, 6))

    def test_slow(self) -> None:
        """One that took long is followed by looks from where it got to."""
        self.look(0.2, 5)
        self.assertEqual(self.look(0.5, 6), 5)
        self.assertEqual(self.look(0.5, None), 6)
        self.assertEqual(self.cursor.start(), 6)
        self.clock.advance(1.0)
        self.assertIsNone(self.look(0.2, 1))
        self.assertEqual(self.cursor.start(), 1)

    def test_very_slow(self) -> None:
        """What came to lie before the place is found in time all the same."""
        self.look(60.0, 5)
        self.assertEqual(self.cursor.start(), 5)
        self.clock.advance(MAX_PAUSE)
        self.assertIsNone(self.cursor.start())

    def test_held(self) -> None:
        """Each peer has its own, and there are not more and more of them."""
        cursors = Cursors(self.clock)
        one = cursors.held("office", ["example.com", "example.org"])
        self.assertIs(cursors.held("office", ["example.org", "example.com"]), one)
        self.assertIsNot(cursors.held("branch", ["example.org", "example.com"]), one)
        for number in range(MAX_HELD):
            cursors.held("office", [f"{number}.example"])
        self.assertIsNot(cursors.held("office", ["example.com", "example.org"]), one)


class PlanTests(PostgresTestCase):
    """A claim reads an index in order, before anything is known of the tables."""

    def setUp(self) -> None:
        super().setUp()
        server = Server(self.url)
        self.connection: Connection = server.connect()
        self.addCleanup(self.connection.close)
        schema.prepare(server, self.connection)
        self.connection.execute("ALTER TABLE schedule SET (autovacuum_enabled = off)")
        self.connection.execute("ALTER TABLE recipient SET (autovacuum_enabled = off)")
        self.connection.execute(FEW_ROWS)
        ids = queue_id.QueueIds(time.time)
        envelope = Envelope(
            Mailbox("alice", "client.example"), (Recipient(Mailbox("bob", "example.com")),)
        )
        self.numbers = [ids.next() for _ in range(COUNT)]
        rows.insert(
            self.connection,
            [
                Arrival(number, envelope, place + 1.0, None, 4, True, b"\r\n", b"\r\n")
                for place, number in enumerate(self.numbers)
            ],
        )

    def plan(self, query: bytes, values: Any) -> str:
        """The plan of a query, run."""
        with self.connection.transaction(force_rollback=True):
            found = self.connection.execute(b"EXPLAIN (ANALYZE) " + query, values).fetchall()
        return "\n".join(line for (line,) in found)

    def claimed(self, choice: leases.Choice, start: Any = None) -> leases.Claimed:
        """Claim two messages."""
        return choice.claim(self.connection, 1, 2, start, suspects=True)

    def held(self, domains: list[str]) -> leases.Choice:
        """The choice of all that waits for a peer."""
        return leases.held(Waiting("office", domains, math.inf))

    def hold(self) -> None:
        """Let all wait for a peer, and the first be leased."""
        held = "UPDATE recipient SET state = 'held', peer = 'office', held_domain = domain"
        self.connection.execute(held)
        leased = "UPDATE schedule SET owner = 2, due = 'Infinity' WHERE id = ANY(%s)"
        self.connection.execute(leased, (self.numbers[:100],))

    def test_due(self) -> None:
        """The longest overdue first, from a place on."""
        choice = leases.due(1e9)
        values = {**choice.values, "owner": 1, "limit": 2, "start": choice.first}
        plan = self.plan(choice.query(), values)
        self.assertNotRegex(plan, "Seq Scan|Sort|schedule_pkey")
        claimed = self.claimed(choice)
        self.assertEqual(claimed, leases.Claimed(self.numbers[:2], 2.0))
        self.assertEqual(self.claimed(choice, 200.0).numbers, self.numbers[199:201])
        self.assertEqual(self.claimed(choice).numbers, self.numbers[2:4])

    def test_free(self) -> None:
        """By their ids, and no index is read as a whole."""
        choice = leases.free(self.numbers[:100])
        values = {**choice.values, "owner": 1, "limit": 2, "start": choice.first}
        self.assertNotRegex(self.plan(choice.query(), values), "Seq Scan|schedule_due")
        self.assertEqual(self.claimed(choice).numbers, self.numbers[:2])

    def test_nothing_due(self) -> None:
        """Where there is nothing, all before a moment ago was seen."""
        self.assertEqual(self.claimed(leases.due(0.5)), leases.Claimed([], -4.5))

    def test_held(self) -> None:
        """No other mail is read, nor held mail behind what is claimed."""
        self.hold()
        for domains in (["."], ["example.com"], [".com"]):
            choice = self.held(domains)
            values = {**choice.values, "owner": 1, "limit": 2, "start": choice.first}
            plan = self.plan(choice.query(), values)
            self.assertNotRegex(plan, "Seq Scan|Sort|schedule_due")
            self.assertRegex(plan, r"recipient_held on recipient r .*rows=102 ")
        claimed = self.claimed(self.held(["."]), self.numbers[200])
        self.assertEqual(claimed, leases.Claimed(self.numbers[200:202], self.numbers[201]))

    def test_held_domains(self) -> None:
        """A pattern's signs in a name mean themselves."""
        self.hold()
        for domains in (["other.example"], [".example.com"], [".c_m"], ["%"], []):
            self.assertEqual(self.claimed(self.held(domains)).numbers, [])
        self.assertTrue(self.claimed(self.held(["%", ".com"])).numbers)

    def test_peers(self) -> None:
        """Each peer is looked up in the index, not joined with all that is held."""
        self.hold()
        peers = ["branch", "office", *map(str, range(100))]
        plan = self.plan(leases.PEERS_WITH_MAIL.encode(), (peers,))
        self.assertRegex(plan, "recipient_held on recipient r .*loops=102")
        self.assertNotRegex(plan, "Join Filter|Aggregate|Seq Scan")
        self.assertEqual(leases.peers_with_mail(self.connection, peers), ["office"])

    def test_rows_of_what_is_claimed(self) -> None:
        """Messages are read as they are leased, not once more."""
        claimed = self.claimed(leases.due(1e9))
        known = {number: (*row[:8], "carol", *row[9:]) for number, row in claimed.rows.items()}
        loaded = loading.load(self.connection, claimed.numbers, content, known)
        paths = [str(message.envelope.reverse_path) for message in loaded.messages]
        self.assertEqual(paths, ["carol@client.example"] * 2)

    def test_changed_meanwhile(self) -> None:
        """What another one changes while a claim looks is left to the next, and not lost."""
        due = leases.due(1e9)
        blocked = "(SELECT pg_advisory_xact_lock(5) IS NOT NULL)"
        slow = replace(due, condition=f"{blocked} AND {due.condition}")
        with Server(self.url).connect() as other:
            other.execute("SELECT pg_advisory_lock(5)")
            with ThreadPoolExecutor(1) as pool:
                found = pool.submit(slow.claim, self.connection, 1, 3, None, suspects=False)
                waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                while not found.done() and not other.execute(waits).fetchall():
                    pass
                other.execute("UPDATE schedule SET due = 2.5 WHERE id = %s", (self.numbers[1],))
                other.execute("SELECT pg_advisory_unlock(5)")
                claimed = found.result()
        self.assertEqual(claimed.numbers, [self.numbers[0], self.numbers[2]])
        self.assertEqual(self.claimed(due).numbers, [self.numbers[1], self.numbers[3]])

    def test_no_message(self) -> None:
        """What has a due time alone is leased, and found to be damaged."""
        self.connection.execute("DELETE FROM message WHERE id = %s", (self.numbers[1],))
        claimed = self.claimed(leases.due(1e9))
        self.assertEqual(claimed.numbers, self.numbers[:2])
        loaded = loading.load(self.connection, claimed.numbers, content, claimed.rows)
        self.assertEqual(loaded.damaged, {self.numbers[1]: "its reverse-path is None"})
        self.assertEqual(len(loaded.messages), 1)

    def test_load(self) -> None:
        """What was claimed is looked up by its ids."""
        wanted = (self.numbers[:100],)
        for query in (loading.MESSAGES, loading.RECIPIENTS):
            self.assertNotIn("Seq Scan", self.plan(query.encode(), wanted))
