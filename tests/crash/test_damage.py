"""The database is damaged under a server that runs: all that can be read goes on."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Envelope, Mailbox, Recipient
from mta.spool.database import PAGE
from mta.spool.tools import SpoolTools
from tests.processes import Server, configuration, local_domain, mail_in, wait_until

AUTHORS = "written-by-{:03}-of-many"  # local parts, which stand in the list of messages alone
BODIES = "the body of {:03} of many"
MESSAGES = 240
MOST_ON_A_PAGE = 120
MOST_OF_CONTENT = 30  # on a page of it
MAX_LINES = 12  # in the log: each kind of trouble once a minute
MESSAGE = b"Subject: x\r\n\r\nbody\r\n"


class RunningTests(SynchronousTestCase):
    """A server with mail that waits for a folder."""

    def setUp(self) -> None:
        domains = {name: local_domain() for name in ("office.example", "away.example")}
        self.server = Server(self, configuration(domains=domains))
        self.arrived = self.server.folder / "mail" / "away.example"
        self.arrived.parent.mkdir()
        self.arrived.write_bytes(b"")  # no folder: what is for it is deferred, each second
        self.server.start()
        self.spool = self.server.folder / "spool"
        tools = SpoolTools(self.spool)
        self.addCleanup(tools.close)
        for number in range(MESSAGES):
            author = Mailbox(AUTHORS.format(number), "office.example")
            wanted = Envelope(author, (Recipient(Mailbox("bob", "away.example")),))
            tools.enqueue(wanted, [b"\r\n", BODIES.format(number).encode() * 20, b"\r\n"])
        wait_until(lambda: self.server.log.count(" deferred ") >= MESSAGES, "all were tried")

    def overwrite(self, *texts: str, index: str = "") -> None:
        """Overwrite pages under the eyes of the server.

        Those on which these texts stand, and the first one of an index.
        """
        database = self.spool / "queue.sqlite"
        query = "SELECT rootpage - 1 FROM sqlite_schema WHERE name = ?"
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            wait_until(
                lambda: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0,
                "all is in the database",
            )
            pages = [page for (page,) in connection.execute(query, (index,))]
        octets = database.read_bytes()
        with database.open("r+b") as file:
            for page in (*pages, *(octets.rindex(text.encode()) // PAGE for text in texts)):
                file.seek(page * PAGE)
                file.write(b"\xa5" * PAGE)

    def test_list_and_content(self) -> None:
        """Mail is taken and delivered, what can be read leaves, and the log stays short."""
        self.overwrite(AUTHORS.format(0), BODIES.format(MESSAGES // 2))
        self.take_mail("first")
        self.arrived.unlink()
        arrived = self.arrived / "bob"
        readable = MESSAGES - MOST_ON_A_PAGE - MOST_OF_CONTENT
        wait_until(lambda: len(mail_in(arrived)) >= readable, "what can be read")
        self.take_mail("second")
        self.server.stop()
        self.server.start()
        self.take_mail("third")
        bodies = [BODIES.format(number).encode() * 20 for number in range(MESSAGES)]
        whole = [content for content in mail_in(arrived) if any(b in content for b in bodies)]
        self.assertEqual(len(whole), len(mail_in(arrived)), "damaged mail was delivered")
        self.assertNotIn("Traceback", self.server.log)
        problems = re.findall(r"^\S+ (?:warn|error|critical).*malformed.*$", self.server.log, re.M)
        self.assertIn(len(problems), range(1, MAX_LINES), problems)

    def test_index(self) -> None:
        """All mail leaves, by an index that is made anew, and the log says so once."""
        self.overwrite(index="schedule")
        self.take_mail("first")
        self.arrived.unlink()
        arrived = self.arrived / "bob"
        wait_until(lambda: len(mail_in(arrived)) >= MESSAGES, "all of it")
        self.assertEqual(self.server.log.count("its index schedule was damaged"), 1)
        self.assertNotIn("Traceback", self.server.log)

    def take_mail(self, name: str) -> None:
        """Take and deliver new mail."""
        self.server.send(MESSAGE, f"{name}@office.example")
        self.server.wait_for_mail(f"office.example/{name}")
