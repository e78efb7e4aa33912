"""Mail of our mailboxes that goes on elsewhere, and what comes back."""

from __future__ import annotations

from smtplib import SMTPDataError

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import Server, body_of, configuration, header_of, local_domain

CONTENT = b"Subject: hello\r\n\r\nText\r\n"
SENDER = "carol@partner.example"


class ForwardingTests(SynchronousTestCase):
    """Our server forwards to another one, which has the mailboxes of everybody else."""

    def setUp(self) -> None:
        domains = dict.fromkeys(("partner.example", "elsewhere.example"), local_domain())
        domains["strict.example"] = local_domain(mailboxes=[])
        self.others = Server(self, configuration(hostname="mx.example", domains=domains))
        self.others.start()
        ours = local_domain(
            mailboxes=["alice", "bob", "postmaster"],
            forward={
                "alice": "alice@elsewhere.example",
                "bob": {"to": "bob@elsewhere.example", "keep": True},
            },
        )
        self.server = Server(
            self,
            configuration(
                domains={"office.example": ours},
                routes={"default": f"smtp://127.0.0.1:{self.others.ports['smtp']}"},
            ),
        )
        self.server.start()

    def forwarded(self, name: str) -> bytes:
        """What comes of a message to a mailbox of ours at the other server."""
        self.server.send(CONTENT, f"{name}@office.example", reverse_path=SENDER)
        (arrived,) = self.others.wait_for_mail(f"elsewhere.example/{name}")
        return arrived

    def test_there_and_back(self) -> None:
        """It goes on under a reverse-path of ours, and a bounce finds the sender."""
        (path,) = header_of(self.forwarded("alice"), "Return-Path")
        self.assertRegex(path, "^<SRS0=.+=partner.example=carol@office.example>$")
        self.server.send(b"Subject: bounce\r\n\r\nx\r\n", path.strip("<>"), reverse_path="")
        (bounce,) = self.others.wait_for_mail("partner.example/carol")
        self.assertEqual(["<>"], header_of(bounce, "Return-Path"))

    def test_copy(self) -> None:
        """Where a copy is kept, both get it."""
        self.assertEqual(b"Text\n", body_of(self.forwarded("bob")))
        (kept,) = self.server.wait_for_mail("office.example/bob")
        self.assertEqual([f"<{SENDER}>"], header_of(kept, "Return-Path"))

    def test_loop(self) -> None:
        """What comes back to where it was forwarded from is in a loop, and refused at once."""
        arrived = self.forwarded("alice").replace(b"\n", b"\r\n")
        with self.assertRaises(SMTPDataError) as caught:
            self.server.send(arrived, "alice@office.example", reverse_path=SENDER)
        self.assertIn(b"5.4.6", caught.exception.smtp_error)

    def test_no_loop(self) -> None:
        """A mailbox takes what says that it was there: LMTP clients write so beforehand."""
        content = b"Delivered-To: postmaster@office.example\r\n" + CONTENT
        self.server.send(content, "postmaster@office.example", reverse_path=SENDER)
        self.server.wait_for_mail("office.example/postmaster")

    def test_lost_notice(self) -> None:
        """A notice that can't be delivered goes to our postmaster, once."""
        self.server.send(CONTENT, "x@strict.example", reverse_path="y@strict.example")
        (lost,) = self.server.wait_for_mail("office.example/postmaster")
        self.assertEqual(["A notice could not be delivered"], header_of(lost, "Subject"))
