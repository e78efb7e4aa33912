"""What became of messages, recorded."""

from __future__ import annotations

import errno
import os
import sqlite3
from dataclasses import replace

from twisted.internet.defer import Deferred

from mta.mail import NULL_PATH
from mta.queued import (
    Filter,
    Notice,
)
from mta.session import NOTICE_ORIGIN
from mta.spool import leases
from mta.spool.jobs import Job
from mta.spool.take_over import MAX_SILENT_LOOKS
from tests.spool.cases import ALICE, LARGE, SpoolTestCase, done, envelope, settlement


class SettlementTests(SpoolTestCase):
    """One attempt is recorded in one commit."""

    def test_done(self) -> None:
        """A message whose recipients are all done is gone, rows and all."""
        spool = self.process()
        self.wait(spool.settle(done(self.commit(spool))))
        for table in ("message", "recipient", "content", "leftover"):
            self.assertEqual(self.count(table), 0, table)

    def test_notices(self) -> None:
        """Notices are committed with the attempt, leased to us, large ones in files."""
        spool = self.process()
        message = self.commit(spool)
        to_alice = envelope(ALICE, reverse_path=NULL_PATH)
        notices = (Notice(to_alice, b"", b"small"), Notice(to_alice, b"", LARGE))
        small, large = self.wait(spool.settle(replace(done(message), notices=notices)))
        self.assertEqual((small.envelope, self.content(small)), (to_alice, b"small"))
        self.assertEqual(self.content(large), LARGE)
        self.assertEqual((small.origin, large.origin), (NOTICE_ORIGIN, NOTICE_ORIGIN))
        self.assertEqual(self.wait(spool.lease_due(10)), [])
        self.assertEqual(self.files(), [large.id])

    def test_failure_changes_nothing(self) -> None:
        """Neither notices nor progress of a settlement that failed are there."""
        spool = self.process()
        message = self.commit(spool)

        def fsync(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(os, "fsync", fsync)
        wanted = replace(done(message), notices=(Notice(envelope(), b"", LARGE),))
        self.assertRaises(OSError, self.wait, spool.settle(wanted))
        (entry,) = self.tools().find(Filter())
        self.assertEqual((entry.message.id, entry.state), (message.id, "active"))

    def test_removed(self) -> None:
        """Messages that are done are removed together, files and all."""
        spool = self.process()
        messages = [self.commit(spool), self.commit(spool, LARGE * 2)]
        self.wait(spool.remove([message.id for message in messages], 0.0))
        self.assertEqual((self.count("message"), self.files()), (0, []))

    def test_removed_in_time(self) -> None:
        """Removals wait for each other, or for a commit that somebody needs, but not for long."""
        spool = self.process()
        ids = [self.commit(spool).id for _ in range(4)]
        first, second = (Deferred.fromCoroutine(spool.remove([id], 9.0)) for id in ids[:2])
        self.clock.advance(8.9)
        self.assertEqual(self.count("message"), 4)
        self.clock.advance(0.1)
        self.wait(first)
        self.successResultOf(second)
        third = Deferred.fromCoroutine(spool.remove(ids[2:3], 9.0))
        self.commit(spool)
        self.successResultOf(third)
        fourth = Deferred.fromCoroutine(spool.remove(ids[3:], 9.0))
        self.wait(spool.remove([], 0.0))
        self.successResultOf(fourth)
        self.assertEqual(self.count("message"), 1)

    def test_removal_fails(self) -> None:
        """Whoever asked for it hears of it, and keeps the lease."""
        spool = self.process()
        ids = [self.commit(spool).id for _ in range(2)]
        self.wait(
            self.committers[spool].submit(Job(action=lambda c: c.execute("DROP TABLE leftover")))
        )
        both = [Deferred.fromCoroutine(spool.remove([id], 1.0)) for id in ids]
        self.clock.advance(1.0)
        for each in both:
            self.assertRaises(OSError, self.wait, each)
        self.assertEqual(self.count("message"), 2)
        self.assertEqual(len(spool._leasing._leased), 2)

    def test_a_lost_lease(self) -> None:
        """Whoever lost the lease can't put off the attempt of the new owner."""
        stuck, other = self.process(), self.process()
        message = self.commit(stuck)
        for _ in range(MAX_SILENT_LOOKS):
            self.assertEqual(self.wait(other.take_over()), 0)
        self.assertEqual(self.wait(other.take_over()), 1)
        (again,) = self.wait(other.lease_due(10))
        self.assertTrue(again.recovered)
        self.wait(stuck.settle(settlement(message, self.now() + 9, peer="p")))
        (entry,) = self.tools().find(Filter())
        self.assertEqual((entry.state, entry.due), ("active", leases.NEVER))
        self.assertEqual(entry.message.progress, message.progress)

    def count(self, table: str) -> int:
        """Rows in a table."""
        connection = sqlite3.connect(self.folder.database)
        self.addCleanup(connection.close)
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
