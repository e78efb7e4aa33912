"""What an office must be able to hand over to its relay, with the files of the recipe."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from bench.servers import free_port
from tests.certificates import Authority, fingerprint_of
from tests.interop.reversal import run_mta
from tests.processes import ROOT, Server, header_of, local_domain, temporary_folder

CAROL, DAVE = "carol@partner.example", "dave@partner.example"
LETTER = b"From: Carol <carol@partner.example>\r\nSubject: x\r\n\r\nhello\r\n"
CRON = b"From: root@localhost (Cron Daemon)\r\nSubject: Cron\r\n\r\nbackup failed\r\n"


def recipe(name: str, listen: Mapping[str, int], **keys: Any) -> dict[str, Any]:
    """A file of the recipe, with folders and ports of its own."""
    text = (ROOT / "etc" / name).read_text()
    settings: dict[str, Any] = yaml.load(text, yaml.BaseLoader)
    for entry in settings["listen"]:
        port = listen[entry["service"]]
        entry["endpoint"] = f"tcp:{port}:interface=127.0.0.1"
    return settings | {"spool": "spool", "run_as": "root"} | keys


class OfficeTests(SynchronousTestCase):
    """The two machines of docs/turn/recipe.rst; the VPS has the mailboxes of the world as well."""

    def setUp(self) -> None:
        folder = temporary_folder(self)
        pair = Authority(folder).issue("localhost")
        ports = {"smtp": free_port(), "submission": free_port()}
        config = recipe(
            "vps.yaml",
            ports,
            tls={"certificate": str(pair.certificate), "key": str(pair.key)},
        )
        config["domains"]["partner.example"] = local_domain(mailboxes=["carol", "dave"])
        self.vps = Server(self, config, folder=folder)
        run_mta(self.vps, "user", "add", "office", "--password-stdin", stdin="secret\n")
        run_mta(self.vps, "user", "add", "mallory", "--password-stdin", stdin="secret\n")
        self.vps.start()

        config = recipe("office.yaml", {"smtp": 0, "submission": 0})
        config["peers"]["vps"]["connect"] = {
            "to": f"smtps://localhost:{ports['submission']}",
            "user": "office",
            "secret": "secret",
        }
        config["peers"]["vps"]["pin"] = f"sha256:{fingerprint_of(pair)}"
        config["domains"]["example.com"] |= {
            "deliver": "maildir:mail/{domain}/{local}",
            "forward": {"bob": DAVE, "alice": "nobody@partner.example"},
        }
        self.office = Server(self, config)
        self.office.start()

    def arrived(self, mailbox: str) -> bytes:
        """The one message that the world got."""
        (message,) = self.vps.wait_for_mail(f"partner.example/{mailbox}")
        return message

    def test_a_forward(self) -> None:
        """Mail of the world goes through the office, and out again by the relay."""
        self.vps.send(LETTER, "bob@example.com", reverse_path=CAROL)
        message = self.arrived("dave")
        self.assertRegex(header_of(message, "Return-Path")[0], "^<SRS0=.+@example.com>$")
        self.assertEqual(header_of(message, "From"), ["Carol <carol@partner.example>"])

    def test_a_bounce(self) -> None:
        """A notice of the office reaches the sender, whoever it says that it is from."""
        self.vps.send(LETTER, "alice@example.com", reverse_path=CAROL)
        notice = self.arrived("carol")
        self.assertEqual(header_of(notice, "Return-Path"), ["<>"])
        self.assertIn("MAILER-DAEMON@office.example.com", header_of(notice, "From")[0])

    def test_a_cron_job(self) -> None:
        """Mail of a program that knows no domain goes out under an address of the office."""
        for reverse_path in ("root@localhost", "root@office.example.com"):
            self.office.send(CRON, DAVE, reverse_path=reverse_path)
        for message in self.vps.wait_for_mail("partner.example/dave", 2):
            self.assertEqual(header_of(message, "Return-Path"), ["<root@example.com>"])

    def test_an_ordinary_user(self) -> None:
        """One who is no peer gains nothing: neither From: nor a reverse-path of another."""
        with smtplib.SMTP_SSL(
            "localhost", self.vps.ports["submission"], context=ssl._create_unverified_context()
        ) as client:
            client.login("mallory", "secret")
            for reverse_path in ("mallory@example.com", ""):
                error = self.assertRaises(
                    smtplib.SMTPDataError, client.sendmail, reverse_path, DAVE, LETTER
                )
                self.assertEqual(error.smtp_code, 550)
            for reverse_path in (CAROL, "alice@example.com"):
                refused = self.assertRaises(
                    smtplib.SMTPSenderRefused, client.sendmail, reverse_path, DAVE, LETTER
                )
                self.assertEqual(refused.smtp_code, 553)
