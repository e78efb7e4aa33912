"""Limits of users with real processes: several of them, and one that is started again."""

from __future__ import annotations

import smtplib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mta.commands import main
from mta.users.file import UserFile
from tests.attacks.target import NextHop
from tests.processes import Server, configuration, listener, local_domain, wait_until

MESSAGE = b"From: alice@office.example\r\nSubject: x\r\n\r\nx\r\n"


class SendingLimitTests(SynchronousTestCase):
    """A user whose password others know."""

    def start(self, **limits: Any) -> None:
        """A server with two workers, all of whose mail for elsewhere is refused."""
        host = NextHop(self, refusal=b"550 5.1.1 No such user")
        submission = listener("submission") | {"allow_cleartext_auth": True}
        submission["tls"] = "off"
        self.server = Server(
            self,
            configuration(
                listen=[submission],
                users="users.yaml",
                domains={"office.example": local_domain()},
                routes={"default": f"smtp://127.0.0.1:{host.port}"},
                limits=limits,
                queue={"retry": ["1s"], "workers": 2},
            ),
        )
        UserFile(self.server.folder / "users.yaml").add("alice", "secret", ["@office.example"])
        self.server.start()

    def send(self, *recipients: str) -> tuple[int, str]:
        """Send one message; returns the reply that refused it, or 250."""
        with smtplib.SMTP("127.0.0.1", self.server.ports["submission"], timeout=60) as smtp:
            smtp.login("alice", "secret")
            try:
                refused = smtp.sendmail("alice@office.example", recipients, MESSAGE)
            except smtplib.SMTPSenderRefused as error:
                return error.smtp_code, str(error.smtp_error)
            except smtplib.SMTPRecipientsRefused as error:
                refused = error.recipients
            code, text = next(iter(refused.values()), (250, b""))
            return code, text.decode()

    def test_failures(self) -> None:
        """Refused recipients suspend the user, a restart changes nothing, resume ends it."""
        self.start(failures_per_hour=4)
        self.assertEqual(self.send(*(f"u{n}@elsewhere.example" for n in range(5)))[0], 250)
        wait_until(lambda: "alice is suspended" in self.server.log, "the suspension")
        [notice] = [
            each
            for each in self.server.wait_for_mail("office.example/postmaster")
            if b"alice is suspended" in each
        ]
        self.assertIn(b"mta user resume alice", notice)
        wait_until(lambda: self.send("bob@office.example")[0] == 450, "all workers to know it")
        self.server.stop()
        self.server.start()
        self.assertIn("Sending is suspended", self.send("bob@office.example")[1])
        self.assertEqual(main(["user", "resume", "alice", "-c", str(self.server.config)]), 0)
        wait_until(lambda: self.send("bob@office.example")[0] == 250, "all workers to know it")
        self.assertEqual(main(["user", "suspend", "alice", "-c", str(self.server.config)]), 0)
        self.assertIn("Sending is suspended", self.send("bob@office.example")[1])

    def test_recipients(self) -> None:
        """Recipients of a day count over a restart."""
        self.start(recipients_per_day=3)
        bobs = [f"bob{n}@office.example" for n in range(4)]
        self.assertEqual(self.send(*bobs)[0], 450)
        self.server.stop()
        self.server.start()
        code, text = self.send("bob@office.example")
        self.assertEqual((code, text[:25]), (450, "4.7.1 Too many recipients"))
        mail = self.server.wait_for_mail("office.example/postmaster")
        self.assertIn(b"alice has reached the limit of recipients", mail[0])
        self.assertEqual(len(mail), 1)
