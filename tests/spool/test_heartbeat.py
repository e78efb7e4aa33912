"""Beats: commits that show others that a process lives."""

from __future__ import annotations

import sqlite3

from twisted.internet.defer import Deferred

from mta.spool import batches, heartbeat
from mta.spool.folder import Folder
from mta.spool.jobs import Job
from tests.spool.cases import SpoolTestCase, failing, of_sqlite


class HeartbeatTests(SpoolTestCase):
    """A real commit, again and again."""

    def test_trouble(self) -> None:
        """Those who watch hear of a commit that fails, and of one that does not end."""
        spool = self.process()
        self.wait(spool.beat())
        self.assertEqual(spool.failure, "")
        patch = self.patch(batches, "transaction", failing(of_sqlite("SQLITE_IOERR")))
        self.assertRaises(OSError, self.wait, spool.beat())
        self.assertIn("can't be written", spool.failure)
        patch.restore()
        self.wait(spool.beat())
        self.assertEqual(spool.failure, "")
        free = self.block(spool)
        beat = Deferred.fromCoroutine(spool.beat())
        self.clock.advance(heartbeat.MAX_COMMIT + 1)
        self.assertIn("does not end", spool.failure)
        free.set()
        self.wait(beat)
        self.assertEqual(spool.failure, "")

    def test_no_room(self) -> None:
        """A disk with too little room for new mail is told of, as long as it is so."""
        spool = self.process()
        self.patch(Folder, "_free", lambda folder: 10)
        spool.reserve = 10**9
        self.wait(spool.beat())
        self.assertIn("new mail is refused", spool.failure)
        spool.reserve = 1
        self.wait(spool.beat())
        self.assertEqual(spool.failure, "")

    def test_it_goes_on(self) -> None:
        """A beat that fails is not the last."""
        spool = self.process()
        for error in (of_sqlite("SQLITE_FULL"), ZeroDivisionError()):
            patch = self.patch(batches, "transaction", failing(error))
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
