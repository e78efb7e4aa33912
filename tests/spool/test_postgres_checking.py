"""``mta spool check`` on a spool in PostgreSQL."""

from __future__ import annotations

from mta.spool.postgres.checking import PostgresChecker
from mta.spool.postgres.durability import weaknesses
from mta.spool.postgres.server import Server, Session
from tests.spool.contract import LARGE, Contract
from tests.spool.postgres import PostgresTestCase


class CheckingTests(Contract, PostgresTestCase):
    """What is wrong is found, and repaired where that loses nothing."""

    def found(self, *, repair: bool = False) -> list[str]:
        """The problems, repaired or not."""
        session = Session(Server(self.url))
        self.addCleanup(session.close)
        checker = PostgresChecker(session, repair=repair, now=self.now)
        return sorted(finding.problem for finding in checker.findings())

    def test_nothing(self) -> None:
        """A spool in use has no faults, whatever is on its way."""
        spool = self.process()
        self.commit(spool)
        self.waiting(spool, body=LARGE)
        draft = spool.draft()
        self.wait(draft.write(LARGE))
        self.wait(draft.finish())
        self.assertEqual(self.found(), [])

    def test_faults(self) -> None:
        """Each is found once; a second look finds what is not repaired."""
        spool = self.process()
        messages = [self.commit(spool, body) for body in (b"a", b"b", LARGE, b"c")]
        first, second, large, third = sorted(
            number for (number,) in self.sql("SELECT id FROM schedule")
        )
        self.assertEqual(len(messages), 4)
        self.sql("DELETE FROM schedule WHERE id = %s", first)
        self.sql("UPDATE schedule SET owner = 5 WHERE id = %s", second)
        self.sql("DELETE FROM chunk WHERE message = %s AND number = 1", large)
        self.sql("DELETE FROM recipient WHERE message = %s", third)
        self.sql("INSERT INTO upload VALUES (7, 7)")
        self.sql("INSERT INTO chunk VALUES (7, 0, 'x')")
        expected = [
            "it has no recipients",
            "it is leased to a process that is gone",
            "its content has",
            *(f"there is a row in `{t}`" for t in ("chunk", "message", "recipient", "upload")),
        ]
        for repair in (False, True):
            for problem, wanted in zip(self.found(repair=repair), expected, strict=True):
                self.assertTrue(problem.startswith(wanted), problem)
        left = self.found()
        self.assertEqual(len(left), 2)

    def test_durability(self) -> None:
        """A server as it is installed keeps what it has acknowledged."""
        with Server(self.url).connect() as connection:
            self.assertEqual(weaknesses(connection, "here", 2), [])

    def test_connections(self) -> None:
        """All nodes together need no more than the database takes."""
        self.process()  # on another node
        with Server(self.url).connect() as connection:
            self.assertEqual(weaknesses(connection, "here", 15), [])  # 97 are for us
            [line] = weaknesses(connection, "here", 16)
            self.assertIn("it takes 97 connections, and 17 processes", line)
            self.assertEqual(weaknesses(connection, self.path.name, 16), [])
