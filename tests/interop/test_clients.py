"""Mail from clients that others wrote arrives as it was sent."""

from __future__ import annotations

import os
import smtplib
import subprocess
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.bodies import BODIES, EIGHT_BIT, SEVEN_BIT, message
from tests.processes import (
    DEADLINE,
    Server,
    body_of,
    configuration,
    header_of,
    need_program,
)

SENDER = "sender@client.example"
BOB = "bob@office.example"
INBOX = "office.example/bob"


class ClientCase(SynchronousTestCase):
    """A server of ours, and what the tests ask of it."""

    def setUp(self) -> None:
        self.server = Server(self, configuration())
        self.server.start()

    @property
    def port(self) -> int:
        return self.server.ports["smtp"]

    def write(self, content: bytes) -> Path:
        """A file with a message, with CRLF line ends."""
        path = self.server.folder / "message.eml"
        path.write_bytes(content)
        return path

    def run_client(self, command: Sequence[str], standard_input: bytes = b"") -> str:
        """Run a program to its end; fails with its output where it fails."""
        ended = subprocess.run(
            command,
            input=standard_input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE,
            env=os.environ | {"HOME": str(self.server.folder)},
            check=False,
        )
        output = ended.stdout.decode("utf-8", "replace")
        self.assertEqual(ended.returncode, 0, output)
        return output

    def assert_arrived(self, *bodies: bytes) -> None:
        """These bodies lie in bob's Maildir, and no others."""
        arrived = self.server.wait_for_mail(INBOX, len(bodies))
        expected = [body.replace(b"\r\n", b"\n") for body in bodies]
        self.assertEqual(sorted(map(body_of, arrived)), sorted(expected))


class SmtplibTests(ClientCase):
    """Python's smtplib: EHLO, BODY=, SIZE=, no pipelining."""

    def test_bodies_are_unchanged(self) -> None:
        """Dots, 8-bit octets, long lines and large content come through on one connection."""
        with smtplib.SMTP("127.0.0.1", self.port, "client.example", timeout=DEADLINE) as client:
            for body in BODIES.values():
                client.sendmail(SENDER, [BOB], message(body), ["BODY=8BITMIME"])
        self.assert_arrived(*BODIES.values())

    def test_the_trace_is_there(self) -> None:
        """Final delivery adds Return-Path: first and one Received: of ours."""
        self.server.send(message(b"trace\r\n"), BOB, reverse_path=SENDER)
        [arrived] = self.server.wait_for_mail(INBOX)
        self.assertTrue(arrived.startswith(b"Return-Path: <sender@client.example>"), arrived)
        [received] = header_of(arrived, "Received")
        self.assertRegex(received, r"from client\.example .*by mail\.office\.example .*with ESMTP ")

    def test_helo_is_enough(self) -> None:
        """A client of 1982 gets its mail through."""
        with smtplib.SMTP("127.0.0.1", self.port, "client.example", timeout=DEADLINE) as client:
            client.helo()
            client.sendmail(SENDER, [BOB], message(SEVEN_BIT))
        self.assert_arrived(SEVEN_BIT)

    def test_other_mail_is_refused_without_a_route(self) -> None:
        """From the loopback network one may relay, yet nobody@ our domain is checked."""
        self.server.stop()
        domain = {"deliver": "maildir:mail/{domain}/{local}", "mailboxes": ["bob"]}
        self.server.configure(configuration(domains={"office.example": domain}))
        self.server.start()
        with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
            self.server.send(message(b"x\r\n"), "nobody@office.example")
        code, text = caught.exception.recipients["nobody@office.example"]
        self.assertEqual((code, text), (550, b"5.1.1 No such user here"))


class SwaksTests(ClientCase):
    """swaks, which shows its whole dialogue."""

    def swaks(self, *options: str) -> str:
        """Send the message file; returns the dialogue."""
        return self.run_client(
            [
                need_program(self, "swaks"),
                *("--server", "127.0.0.1", "--port", str(self.port)),
                *("--from", SENDER, "--to", BOB, "--helo", "client.example"),
                *("--data", f"@{self.server.folder}/message.eml"),
                *options,
            ]
        )

    def write_message(self, body: bytes) -> None:
        """The message file, less the end of its last line: swaks adds that."""
        self.write(message(body).removesuffix(b"\r\n"))

    def test_bodies_are_unchanged(self) -> None:
        """Dots, 8-bit octets and long lines come through."""
        for body in (SEVEN_BIT, EIGHT_BIT):
            self.write_message(body)
            dialogue = self.swaks()
        self.assertIn("221 2.0.0 mail.office.example Service closing", dialogue)
        self.assert_arrived(SEVEN_BIT, EIGHT_BIT)

    def test_pipelining(self) -> None:
        """MAIL, RCPT and DATA in one write get their replies in order."""
        self.write_message(EIGHT_BIT)
        dialogue = self.swaks("--pipeline")
        self.assertIn("250-PIPELINING", dialogue)
        self.assert_arrived(EIGHT_BIT)

    def test_a_client_without_extensions(self) -> None:
        """HELO, MAIL, RCPT, DATA: nothing of ESMTP is needed."""
        self.write_message(EIGHT_BIT)
        dialogue = self.swaks("--protocol", "SMTP")
        self.assertIn("HELO client.example", dialogue)
        self.assert_arrived(EIGHT_BIT)


class CurlTests(ClientCase):
    """curl, with a message from a file."""

    def test_bodies_are_unchanged(self) -> None:
        """Dots, 8-bit octets, long lines and large content come through."""
        for body in BODIES.values():
            path = self.write(message(body))
            self.run_client(
                [
                    need_program(self, "curl"),
                    *("--silent", "--show-error", "--noproxy", "*"),
                    f"smtp://127.0.0.1:{self.port}/client.example",
                    *("--mail-from", SENDER, "--mail-rcpt", BOB, "--upload-file", str(path)),
                ]
            )
        self.assert_arrived(*BODIES.values())


class MsmtpTests(ClientCase):
    """msmtp, which pipelines, with a message on standard input."""

    def test_bodies_are_unchanged(self) -> None:
        """Dots, 8-bit octets, long lines and large content come through."""
        for body in BODIES.values():
            self.run_client(
                [
                    need_program(self, "msmtp"),
                    *("--file=/dev/null", "--host=127.0.0.1", f"--port={self.port}"),
                    *("--domain=client.example", f"--from={SENDER}", "--tls=off", "--auth=off"),
                    *("--", BOB),
                ],
                message(body),
            )
        self.assert_arrived(*BODIES.values())


class SnailTests(ClientCase):
    """s-nail (mailx), which writes the header section, and encodes the body, itself."""

    def test_a_body_is_unchanged(self) -> None:
        """What somebody types arrives as typed."""
        body = b".\n..\n.leading dot\nFrom the start\n\nlast\n"
        self.run_client(
            [
                need_program(self, "s-nail"),
                *("-:/", "-r", SENDER, "-s", "typed"),
                *(
                    "-S",
                    "DEAD=/dev/null",
                    "-S",
                    "v15-compat",
                    "-S",
                    f"mta=smtp://127.0.0.1:{self.port}",
                ),
                *("-S", "smtp-auth=none", "-S", "smtp-hostname=client.example"),
                BOB,
            ],
            body,
        )
        [arrived] = self.server.wait_for_mail(INBOX)
        self.assertEqual(message_from_bytes(arrived).get_payload(decode=True), body)


class NodemailerTests(ClientCase):
    """nodemailer, where node and the package are installed."""

    def test_a_body_is_unchanged(self) -> None:
        """A raw message comes through."""
        node = need_program(self, "node")
        found = subprocess.run(
            [node, "-e", "require('nodemailer')"], capture_output=True, check=False
        )
        if found.returncode:
            self.skipTest("nodemailer is not installed")
        script = """
            const [port, path] = process.argv.slice(1);
            require('nodemailer')
                .createTransport({host: '127.0.0.1', port: Number(port), ignoreTLS: true})
                .sendMail({
                    envelope: {from: 'sender@client.example', to: 'bob@office.example'},
                    raw: require('fs').readFileSync(path),
                });
        """
        path = self.write(message(EIGHT_BIT))
        self.run_client([node, "-e", script, str(self.port), str(path)])
        self.assert_arrived(EIGHT_BIT)
