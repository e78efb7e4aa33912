"""Each call fails that a server with more features makes while it runs."""

from __future__ import annotations

import json
import os
import smtplib
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mta.mail import Envelope, Mailbox, Recipient
from mta.maildrop import drop
from mta.pairing.mailboxes import MailboxFiles
from mta.users.file import UserFile
from tests.certificates import Authority
from tests.crash import load
from tests.crash.test_failing_calls import MAX_LINES, FailingCase
from tests.interop.sink import Sink
from tests.processes import DEADLINE, TWISTD, listener, local_domain, wait_until

ERROR = os.environ.get("MTA_CALL_ERROR", "EMFILE")  # `make soak` has others
PASSWORD = "correct horse"  # of alice
# A server that looks at its files all the time.
LOOKING = (
    sys.executable,
    "-c",
    "from mta.service import main\n"
    "main.CERTIFICATES_INTERVAL = main.MAILBOXES_INTERVAL = main.PICKUP_INTERVAL = 0.1\n"
    "main.TAKE_OVER_INTERVAL = 0.1\n"
    "from mta.maildrop import pickup; pickup.PAUSE = 0.1\n"
    "from twisted.scripts.twistd import run; run()",
    *TWISTD[3:],
)


@dataclass(frozen=True, slots=True)
class Row:
    """Files, by a part of their paths, the calls on them, and the name of what makes them."""

    path: str
    calls: str
    use: str


ROWS = (
    Row("/users.yaml", "open read stat close", "log_in"),
    Row("/log-ins.json", "stat", "log_in"),
    Row("/dkim.pem", "open read", "sign"),
    Row("/mail.office.example.crt", "open read stat", "renew"),
    Row("/mail.office.example.key", "open read stat", "renew"),
    Row("/mailboxes", "open read stat", "hold"),
    Row("/maildrop", "open read stat list unlink", "drop"),
    Row("/accounts.sqlite", "write lock", "log_in"),
    Row("/queue.sqlite", "write fsync lock", "mail"),
    Row("/queue.sqlite-wal", "read write fsync", "mail"),
    Row("/commit.lock", "lock", "mail"),
    Row("/holds.json", "stat", "mail"),
    Row("/ballast", "stat", "nothing"),
    Row("/owners", "stat list", "nothing"),
    Row("/spool", "statvfs", "mail"),
    Row("/incoming", "stat own short_write", "large"),
    Row("/content", "stat read unlink", "large"),
    Row("/maildirsize", "open write stat close", "mail"),
    Row("/mail/", "stat short_write", "mail"),
    Row("/cat", "stat", "pipe"),
    Row("/setsid", "spawn", "pipe"),
    Row("2", "socket", "relay"),
    Row("", "accept", "mail"),
)


class FeaturesCase(FailingCase):
    """A server with users, quotas, signatures, certificates, a pipe, a peer and a next hop."""

    command = LOOKING

    def features(self, folder: Path) -> Mapping[str, Any]:
        """Make keys, a certificate, a user, and the list of mailboxes of a peer."""
        self.authority = Authority(folder)
        pair = self.authority.issue("mail.office.example", file="mail.office.example")
        key = rsa.generate_private_key(65537, 2048)
        form = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        (folder / "dkim.pem").write_bytes(key.private_bytes(*form))
        (folder / "dkim.pem").chmod(0o600)
        UserFile(folder / "users.yaml").add("alice", PASSWORD, ["alice@office.example"])
        (folder / "spool").mkdir(0o700)
        told = {"branch.example": {"names": ["bob"], "subaddress": "+"}}
        MailboxFiles(folder / "spool").keep("branch", json.dumps(told).encode())
        self.sink = Sink(self)
        return {
            "users": "users.yaml",
            "listen": [listener("smtp"), listener("submission", "implicit")],
            "tls": {"certificate": str(pair.certificate), "key": str(pair.key)},
            "limits": {"recipients_per_day": 100_000},
            "queue": {"retry": ["1s"], "connection_idle": "0s"},
            "routes": {"sink.example": f"smtp://127.0.0.1:{self.sink.port}"},
            "peers": {"branch": {"user": "branch", "domains": ["branch.example"]}},
            "domains": {
                "office.example": local_domain(
                    quota="1GiB", dkim=[{"selector": "a", "key": "dkim.pem"}]
                ),
                "pipe.example": {"deliver": "pipe:cat", "mailboxes": "any"},
                "branch.example": {"deliver": "hold:branch"},
            },
        }

    # --- uses

    def nothing(self) -> None:
        """Look at the files again, as it does all the time."""

    def mail(self) -> None:
        """Take a small message."""
        self.send()

    def large(self) -> None:
        """Take a large message."""
        self.send(is_large=True)

    def pipe(self) -> None:
        """Hand a message to a command."""
        self.server.send(load.content("x-1", "x@client.example"), "cat@pipe.example")

    def relay(self) -> None:
        """Send a message to the next hop."""
        self.server.send(load.content("x-1", "x@client.example"), "x@sink.example")

    def sign(self) -> None:
        """Send a message that is signed; the key is read at the first use after a reload."""
        before = self.server.log.count("read again")
        self.server.process.signal(1)
        wait_until(lambda: self.server.log.count("read again") > before, "a reload")
        content = load.content("x-1", "alice@office.example")
        self.server.send(content, "x@sink.example", reverse_path="alice@office.example")

    def renew(self) -> None:
        """Have another certificate."""
        self.authority.issue("mail.office.example", file="mail.office.example")

    def hold(self) -> None:
        """Change the list of mailboxes of a peer, and send to one that is on it, and to one not."""
        os.utime(self.server.folder / "spool" / "mailboxes")
        content = load.content("x-1", "x@client.example")
        self.server.send(content, "bob@branch.example")
        refused = self.assertRaises(
            smtplib.SMTPRecipientsRefused, self.server.send, content, "nobody@branch.example"
        )
        self.assertEqual([code for code, _ in refused.recipients.values()], [550])

    def drop(self) -> None:
        """Leave a message in the maildrop."""
        self.count += 1
        marker, name = f"m-{self.count * load.LARGE_EVERY + 1}", f"user{self.count}"
        to = Recipient(Mailbox(name, "office.example"))
        envelope = Envelope(Mailbox("x", "client.example"), (to,))
        drop.leave(
            self.server.folder / "spool", envelope, [load.content(marker, "x@client.example")]
        )
        self.expected[name] = {marker}

    def log_in(self) -> None:
        """Log in with the right password: that may be put off, and is never refused for good."""
        context = ssl.create_default_context(cafile=str(self.authority.path))
        context.check_hostname = False
        port = self.server.ports["submission"]
        (self.server.folder / "users.yaml").touch()
        with smtplib.SMTP_SSL("127.0.0.1", port, timeout=DEADLINE, context=context) as client:
            try:
                client.login("alice", PASSWORD)
                content = load.content("x-1", "alice@office.example")
                client.sendmail("alice@office.example", "x@sink.example", content)
            except smtplib.SMTPResponseException as refusal:
                self.assertEqual(refusal.smtp_code // 100, 4, refusal)
            except smtplib.SMTPRecipientsRefused as refusal:
                codes = {code // 100 for code, _ in refusal.recipients.values()}
                self.assertEqual(codes, {4}, refusal)


class RunningTests(FeaturesCase):
    """A call fails once."""

    def test_each_call(self) -> None:
        """Nothing is refused for good, all arrives once, the log is short; all rows are of use."""
        for row in ROWS:
            for call in row.calls.split():
                # As Linux has it; without a descriptor, Twisted would close the connection.
                error = "ENFILE" if call == "accept" else ERROR
                self.fail_once(row, call.replace("_", " "), error)
        self.send()
        self.assert_all_delivered()

    def fail_once(self, row: Row, call: str, error: str) -> None:
        """Let a call fail while the server is used."""
        what, before = f"{row.path} {call} {error}", len(self.problems())
        with self.calls.failing(call, row.path, error):
            try:
                getattr(self, row.use)()
            except smtplib.SMTPResponseException as refusal:
                self.assertEqual(refusal.smtp_code // 100, 4, f"{what} {refusal}")
            except smtplib.SMTPRecipientsRefused as refusal:
                codes = {code // 100 for code, _ in refusal.recipients.values()}
                self.assertEqual(codes, {4}, f"{what} {refusal}")
            wait_until(lambda: self.calls.failed, what)
        lines = self.problems()[before:]
        self.assertLessEqual(len(lines), MAX_LINES, f"{what} {lines}")
        self.assertNotIn("Traceback", self.server.log, what)
