"""What got its 250 is there afterwards, however processes end (RFC 5321 section 6.1)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.tree import own_cpu_seconds
from tests.crash.outcome import Outcome
from tests.crash.site import HELD, MAX_WAIT, Site
from tests.crash.victims import MAX_START, Victims
from tests.processes import Server, configuration, wait_until

KILLS = 11  # each victim once
WAITING = 100_000  # messages


class KillTests(SynchronousTestCase):
    """kill -9, again and again, while mail is accepted, delivered, relayed, held and fetched."""

    def test_every_acknowledged_message_arrives(self) -> None:
        """Each arrives whole; twice only where a kill came between a host's 250 and its record."""
        site = Site(self, HELD)
        victims = Victims(site, 821)
        site.begin()
        victims.kill(KILLS)
        wait_until(lambda: all(site.acknowledged), "mail on each way", MAX_WAIT)
        wait_until(lambda: sum(site.acknowledged) > KILLS * 5, "a load", MAX_WAIT)
        site.end()
        outcome = Outcome(site, victims.kills)
        outcome.check()
        self.assertLess(max(victims.processor), MAX_START)


class StartTests(SynchronousTestCase):
    """A start with a long queue."""

    def test_long_queue(self) -> None:
        """It takes no longer, whether all is due or nothing, and after a kill amid the work."""
        routes = {"away.example": "smtp://127.0.0.1:1"}
        server = Server(self, configuration(routes=routes, relay={"networks": ["127.0.0.1"]}))
        server.start()
        server.send(b"Subject: x\r\n\r\nbody\r\n", "carol@away.example")
        server.kill()
        multiply(server.folder / "spool/queue.sqlite", WAITING)
        for _ in range(2):  # the second time, what was leased by one that was killed as well
            server.start()
            assert server.process is not None
            self.assertLess(own_cpu_seconds(server.process.pid), MAX_START)
            server.kill()


def multiply(path: Path, count: int) -> None:
    """Make many messages of the one that is in a database; all are due."""
    with closing(sqlite3.connect(path)) as database:
        for table, key in (("message", "id"), ("content", "id"), ("recipient", "message")):
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            values = ", ".join(f"{key} + value" if name == key else name for name in names)
            database.execute(
                "WITH RECURSIVE numbers(value) AS"
                " (SELECT 1 UNION ALL SELECT value + 1 FROM numbers WHERE value < ?)"
                f" INSERT INTO {table} SELECT {values} FROM {table}, numbers",
                (count - 1,),
            )
        database.execute("UPDATE message SET due = 0, owner = NULL")
        database.commit()
