"""The memory of what peers brought: its end, crashes, and holds."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

from mta.queued import AlreadyTaken
from mta.spool import rows
from mta.spool.holds import StandingHold, StandingHolds
from mta.spool.taken import KEPT, MAX_PURGED, PURGE_PAUSE, TakenMail
from tests.spool.cases import LARGE, SpoolTestCase, envelope
from tests.spool.contract import Contract
from tests.spool.peer_mail_contract import BROUGHT


class TakenMailTests(SpoolTestCase):
    """What is remembered, and for how long."""

    def setUp(self) -> None:
        super().setUp()
        self.seconds = 1e9
        self.taken = TakenMail(lambda: self.seconds)
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.addCleanup(self.connection.close)

    def arrival(self, told_id: str, **more: Any) -> rows.Arrival:
        """A message of a peer."""
        origin = replace(BROUGHT, told_id=told_id, **more)
        return rows.Arrival(1, envelope(), 0.0, 1, 1, True, b"", b"", origin)

    def is_new(self, told_id: str) -> bool:
        """Bring a message; whether it was taken."""
        (left,) = self.taken.sift(self.connection, [self.arrival(told_id)])
        return bool(left.envelope.recipients)

    def test_a_week(self) -> None:
        """Then it is forgotten, bit by bit."""
        for number in range(MAX_PURGED + 10):
            self.assertTrue(self.is_new(str(number)))
        self.seconds += KEPT
        self.assertFalse(self.is_new("0"))
        self.seconds += PURGE_PAUSE + 1
        left = []
        for number in range(3):
            self.assertTrue(self.is_new(f"more {number}"))
            (count,) = self.connection.execute("SELECT count(*) FROM taken").fetchone()
            left.append(count)
        self.assertEqual(left, [11, 2, 3])
        self.assertTrue(self.is_new("0"))

    def test_no_cost(self) -> None:
        """Where no peer brings mail, nothing is made in the database."""
        arrivals = [self.arrival(""), self.arrival("X", turned_peer="")]
        self.assertIs(self.taken.sift(self.connection, arrivals), arrivals)
        found = self.connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        self.assertEqual(found, (0,))


class TransactionTests(Contract, SpoolTestCase):
    """It is remembered if, and only if, it was committed."""

    def test_a_failed_commit(self) -> None:
        """A message that could not be committed may come again."""
        spool = self.process()
        real, failures = rows.insert, [sqlite3.OperationalError("disk I/O error")]

        def insert(*arguments: Any) -> None:
            if failures:
                raise failures.pop()
            real(*arguments)

        self.patch(rows, "insert", insert)
        with self.assertRaises(OSError):
            self.commit(spool, origin=BROUGHT)
        self.commit(spool, origin=BROUGHT)
        with self.assertRaises(AlreadyTaken):
            self.commit(spool, origin=BROUGHT)

    def test_another_process(self) -> None:
        """All processes remember, and the next one does after a kill."""
        first, second = self.restartable(), self.process()
        self.commit(first, origin=BROUGHT)
        with self.assertRaises(AlreadyTaken):
            self.commit(second, origin=BROUGHT)
        self.kill(first)
        third = self.process()
        with self.assertRaises(AlreadyTaken):
            self.commit(third, LARGE, origin=BROUGHT)
        self.stop(third)
        self.assertEqual([*self.folder.incoming_files()], [])
        self.assertEqual([*self.folder.contents.iterdir()], [])


class PreviewTests(SpoolTestCase):
    """What could not be committed is not read before."""

    def test_a_standing_hold(self) -> None:
        """A message that would be on hold is not handed out."""
        spool = self.process()
        StandingHolds(self.folder).add(StandingHold(domain="example.org"))
        draft = spool.draft()
        self.assertIsNone(self.wait(spool.preview(draft, envelope(), b"", BROUGHT)))

    def test_no_room(self) -> None:
        """Nor is one for which there is no room, should it have to be committed."""
        spool = self.process()
        spool.reserve = 2**62
        draft = spool.draft()
        self.assertIsNone(self.wait(spool.preview(draft, envelope(), b"", BROUGHT)))
