"""Notices of the running server, to outsiders and to hosts of its own."""

from __future__ import annotations

import smtplib

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import Server, configuration, header_of, local_domain

SECRETS = (b"eve", b"private.example", b"inside", b"127.0.0.1:1", b"stands for", b"The body.")
CONTENT = b"Subject: hello\r\n\r\nThe body.\r\n"


class NoticeTests(SynchronousTestCase):
    """hr stands for people whom nobody knows, behind hosts that nobody sees."""

    def server(self, networks: list[str]) -> Server:
        """A running server, for whom the client is a host of its own or not."""
        domain = local_domain(
            mailboxes=["postmaster"],
            aliases={"hr": ["eve@private.example", "mallory@private.example"]},
        )
        server = Server(
            self,
            configuration(
                domains={"office.example": domain, "outside.example": local_domain()},
                routes={"private.example": "smtp://inside.invalid:1"},
                relay={"networks": networks},
                queue={"give_up_after": "1s", "retry": ["1s"]},
            ),
        )
        server.start()
        return server

    def notice(self, networks: list[str]) -> bytes:
        """What comes back of a message to hr that can't be delivered."""
        server = self.server(networks)
        with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=30) as client:
            client.sendmail(
                "joe@outside.example",
                ["hr@office.example"],
                CONTENT,
                ["RET=FULL"],
                ["NOTIFY=SUCCESS,FAILURE"],
            )
        (notice,) = server.wait_for_mail("outside.example/joe")
        self.assertIn("Mail Delivery System", header_of(notice, "From")[0])
        return notice

    def test_outsiders(self) -> None:
        """One report for the address that was named, and the header section."""
        notice = self.notice([])
        for secret in SECRETS:
            self.assertNotIn(secret, notice)
        self.assertEqual(notice.count(b"Final-Recipient: rfc822; hr@office.example"), 1)
        self.assertIn(b"Subject: hello", notice)

    def test_our_own_hosts(self) -> None:
        """They are told all that is known, and have the message back."""
        notice = self.notice(["127.0.0.0/8"])
        for told in (b"eve@private.example", b"mallory@private.example", b"The body."):
            self.assertIn(told, notice)
