"""Databases that can't be used, and versions of the tables beside each other."""

from __future__ import annotations

import threading
from functools import partial

from twisted.python.monkey import MonkeyPatcher

from mta.spool.database import SpoolTooNew, SpoolUnusable
from mta.spool.postgres import schema, writer
from mta.spool.postgres import spool as spool_module
from mta.spool.postgres.owner_rows import OwnerName
from mta.spool.postgres.server import Server
from tests.spool.test_postgres_failover import Case, beats


class RefusalTests(Case):
    """A server that lets us in at no time."""

    def test_refused(self) -> None:
        """A wrong name of the database or the user, and what is no URL: one line, no start."""
        for wrong in (
            self.url.replace("/postgres", "/nowhere"),
            self.url.replace("//mta@", "//stranger@"),
            self.url + "&nonsense=1",
        ):
            self.url = wrong
            with self.assertRaises(SpoolUnusable) as caught:
                self.process()
            self.assertNotIn("\n", str(caught.exception))


class SchemaTests(Case):
    """Versions of the tables."""

    def test_a_newer_one(self) -> None:
        """It is refused in one line."""
        self.process()
        self.sql("UPDATE format SET version = 99, oldest = 99")
        with self.assertRaises(SpoolTooNew) as caught:
            self.process()
        self.assertNotIn("\n", str(caught.exception))

    def test_at_once(self) -> None:
        """Several processes that find no tables make them once."""
        self.prepare_at_once()

    def test_an_upgrade_at_once(self) -> None:
        """Several processes that find older tables upgrade them once."""
        self.process()
        self.become_newer("ALTER TABLE document ADD COLUMN extra text", oldest=1)
        self.prepare_at_once()
        self.assertEqual(self.sql("SELECT version, oldest FROM format"), [(2, 1)])
        self.assertEqual(self.sql("SELECT extra FROM document"), [])

    def test_side_by_side(self) -> None:
        """What an older version can use, it goes on to use, and can be started with again."""
        old = self.process()
        before = self.commit(old)
        newer = self.become_newer("ALTER TABLE document ADD COLUMN extra text", oldest=1)
        new = self.process()
        newer.restore()
        after = self.commit(old)
        other = self.process()
        self.assertEqual(self.sql("SELECT version FROM format"), [(2,)])
        for spool in (new, other):
            self.assertTrue(beats(self, spool))
        self.assertEqual(self.queued(), sorted([before.id, after.id]))

    def test_an_older_one_lives(self) -> None:
        """An upgrade that it could not bear is refused until it is stopped; then it is refused."""
        old = self.process()
        newer = self.become_newer("ALTER TABLE document RENAME COLUMN value TO text", oldest=2)
        with self.assertRaises(SpoolUnusable) as caught:
            self.process()
        self.assertIn(f"runs on {self.path.name}", str(caught.exception))
        self.assertTrue(beats(self, old))
        self.stop(old)
        self.process()
        newer.restore()
        self.assertRaises(SpoolTooNew, self.process)

    def test_an_older_one_stood_still(self) -> None:
        """It was believed dead, and the tables were upgraded: it takes no more mail."""
        old = self.process()
        self.sql("UPDATE owner SET alive_until = '-infinity'")
        newer = self.become_newer("ALTER TABLE document ADD COLUMN extra text", oldest=2)
        self.take_over(self.process())
        newer.restore()
        self.assertFalse(beats(self, old))
        self.assertIn("made by a newer version", old.failure)

    def become_newer(self, script: str, oldest: int) -> MonkeyPatcher:
        """Be the next version, until the patch is undone."""
        steps = {schema.VERSION: schema.Upgrade(script, oldest)}
        version = schema.VERSION + 1
        patcher = MonkeyPatcher(
            (schema, "_UPGRADES", steps),
            (schema, "VERSION", version),
            (spool_module, "OwnerName", partial(OwnerName, format=version)),
            (writer, "OwnerName", partial(OwnerName, format=version)),
        )
        patcher.patch()
        self.addCleanup(patcher.restore)
        return patcher

    def prepare_at_once(self) -> None:
        """Let several processes look at the tables at the same time."""
        server = Server(self.url)
        failures: list[Exception] = []

        def prepare() -> None:
            try:
                with server.connect() as connection:
                    schema.prepare(server, connection)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=prepare) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
