"""One copy in each Maildir, whatever the ways to it, also where the server dies on the way."""

from __future__ import annotations

import signal
import smtplib

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import DEADLINE, Server, configuration, wait_until

CONTENT = b"Subject: once\r\n\r\nbody\r\n"
TO = [
    "alice@office.example",
    "Alice@Office.Example",
    "alice+lists@office.example",
    "staff@office.example",
    "alice@old.example",
    *["team@office.example"] * 20,
]


class OneMailboxTests(SynchronousTestCase):
    """A server with aliases, a list and another name for its domain."""

    def setUp(self) -> None:
        domains = {
            "office.example": {
                "mailboxes": ["alice", "bob"],
                "aliases": {"staff": ["alice"], "team": ["alice", "bob"]},
                "deliver": "maildir:mail/{domain}/{local}",
            },
            "old.example": {"alias_of": "office.example"},
        }
        self.server = Server(self, configuration(domains=domains))
        self.server.start()

    def test_one_copy(self) -> None:
        """The message that follows shows that nothing more comes."""
        for recipients in (TO, ["alice@office.example", "bob@office.example"]):
            with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=DEADLINE) as client:
                client.sendmail("a@client.example", recipients, CONTENT)
        for name in ("alice", "bob"):
            self.server.wait_for_mail(f"office.example/{name}", 2)
        wait_until(lambda: self.server.log.count(" removed") >= 2, "both are done with")
        for name in ("alice", "bob"):
            self.assertEqual(2, len(self.server.wait_for_mail(f"office.example/{name}", 2)))

    def test_the_server_dies(self) -> None:
        """Whatever it had written by then is found, and not written again."""
        for number in range(1, 6):
            self.server.send(CONTENT, *TO)
            self.server.kill()
            self.server.start()
            for name in ("alice", "bob"):
                self.server.wait_for_mail(f"office.example/{name}", number)
        self.assertIn(self.server.stop(), (0, -signal.SIGTERM))
        for name in ("alice", "bob"):
            self.assertEqual(5, len(self.server.wait_for_mail(f"office.example/{name}", 5)))
