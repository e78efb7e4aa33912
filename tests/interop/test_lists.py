"""Lists and greylisting, with a name server and a server of their own."""

from __future__ import annotations

import smtplib

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.name_server import answering
from tests.processes import Server, configuration, header_of, local_domain

LISTED, GREY, OTHER, JUNK = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"
TABLE = {
    "1.2.0.192.zen.example": "127.0.0.2",
    "2.2.0.192.grey.example": "127.0.0.2",
    "1.2.0.192.refusing.example": "127.255.255.254",
    "1.0.0.127.refusing.example": "127.255.255.254",
    "4.2.0.192.junk.example": "127.0.0.2",
    "3.2.0.192.mad.example": "127.0.0.2",
    "1.0.0.127.mad.example": "127.0.0.2",
}


class ListTests(SynchronousTestCase):
    """Clients that a proxy names."""

    def setUp(self) -> None:
        self.server = Server(
            self,
            configuration(
                resolver=[answering(self, TABLE)],
                relay={"networks": [], "xclient": ["127.0.0.1"]},
                domains={"office.example": local_domain()},
                block_lists=[
                    {"zone": "refusing.example"},
                    {"zone": "mad.example"},
                    {"zone": "zen.example"},
                    {"zone": "grey.example", "action": "greylist"},
                    {"zone": "junk.example", "action": "junk"},
                ],
                greylist={"delay": "1s"},
            ),
        )
        self.server.start()

    def rcpt(self, client: str, address: str = "bob@office.example") -> tuple[int, str]:
        """The reply to RCPT for a client."""
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=60) as smtp:
            smtp.ehlo("proxy.example")
            self.assertEqual(smtp.docmd("XCLIENT", f"ADDR={client} NAME=mx.a.example")[0], 220)
            smtp.ehlo("mx.a.example")
            self.assertEqual(smtp.mail("alice@a.example")[0], 250)
            code, text = smtp.rcpt(address)
            return code, text.decode()

    def test_lists(self) -> None:
        """Each client gets what its lists say; lists that are of no use say nothing."""
        expected = (550, f"5.7.1 The host [{LISTED}] is on the block list zen.example")
        self.assertEqual(self.rcpt(LISTED), expected)
        self.assertEqual(self.rcpt(LISTED, "postmaster@office.example")[0], 250)
        self.assertEqual(self.rcpt(OTHER)[0], 250)
        self.assertIn("the list refusing.example is left out", self.server.log)
        self.assertIn("the list mad.example is left out", self.server.log)

    def test_at_the_start(self) -> None:
        """No client has to come: the log tells of lists that are of no use."""
        assert self.server.process is not None
        self.server.process.wait_for("the list refusing.example is left out")
        self.server.process.wait_for("the list mad.example is left out")
        self.server.process.wait_for("the list zen.example does not have 127.0.0.2")

    def test_junk(self) -> None:
        """A list can have mail put among the junk."""
        for client in (OTHER, JUNK):
            with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=60) as smtp:
                smtp.ehlo("proxy.example")
                smtp.docmd("XCLIENT", f"ADDR={client} NAME=mx.a.example")
                smtp.ehlo("mx.a.example")
                smtp.sendmail("alice@a.example", ["bob@office.example"], f"X: {client}\r\n\r\nx")
        for folder, client, mark in (("bob", OTHER, []), ("bob/.Junk", JUNK, ["Yes"])):
            [mail] = self.server.wait_for_mail(f"office.example/{folder}")
            self.assertEqual(header_of(mail, "X"), [client])
            self.assertEqual(header_of(mail, "X-Spam"), mark)

    def test_greylisting(self) -> None:
        """One that has to come again may do so at a server that was started again."""
        code, text = self.rcpt(GREY)
        self.assertEqual((code, text[:17]), (450, "4.7.1 Greylisted,"))
        self.server.stop()
        self.server.start()
        while (code := self.rcpt(GREY)[0]) != 250:
            self.assertEqual(code, 450)
