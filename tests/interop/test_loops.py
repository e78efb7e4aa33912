"""Domains whose MX records lead back to the running server: their mail goes round not once."""

from __future__ import annotations

import smtplib

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.name_server import answering
from tests.processes import Server, configuration, header_of

ADDRESSES = {
    "loopback": "127.0.0.1",
    "another": "127.9.9.9",
    "unspecified": "0.0.0.0",
    "six": "::1",
    "mapped": "::ffff:127.0.0.1",
}
NAMES = ("localhost", "mail.office.example")
DOMAINS = {f"{host}.example": [(10, host)] for host in (*ADDRESSES, *NAMES)}
SENDER = "alice@office.example"


class LoopTests(SynchronousTestCase):
    """The sender hears of it at once."""

    def setUp(self) -> None:
        self.server = Server(self, configuration(resolver=[answering(self, DOMAINS | ADDRESSES)]))
        self.server.start()

    def test_by_mx(self) -> None:
        """Each way home is seen before anything is dialled."""
        for domain in DOMAINS:
            self.server.send(b"Subject: x\r\n\r\nx\r\n", f"bob@{domain}", reverse_path=SENDER)
        notices = self.server.wait_for_mail("office.example/alice", len(DOMAINS))
        self.assertEqual(len(notices), len(DOMAINS))
        for notice in notices:
            self.assertIn(b"5.4.6", notice)
            self.assertEqual(len(header_of(notice, "Received")), 0)
        self.assertNotIn("Cannot connect", self.server.log)

    def test_by_literal(self) -> None:
        """It is refused in reply to RCPT."""
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=30) as client:
            client.ehlo()
            for literal in ("[127.0.0.1]", "[IPv6:::1]", "[0.0.0.0]", "[IPv6:::ffff:127.0.0.1]"):
                client.mail(SENDER)
                code, text = client.rcpt(f"bob@{literal}")
                self.assertEqual((code, text[:5]), (554, b"5.4.6"), literal)
                client.rset()
