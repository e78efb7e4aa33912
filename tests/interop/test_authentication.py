"""Mail from outside, judged by a real server with a DNS of our own."""

from __future__ import annotations

import smtplib
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.name_server import answering
from tests.interop.reversal import Provider, office
from tests.interop.sink import Sink
from tests.processes import (
    DEADLINE,
    MTA,
    Server,
    configuration,
    header_of,
    listener,
    local_domain,
    mail_in,
    source_environment,
    wait_for_mail,
)

try:
    import dkim
except ImportError:
    dkim = None

KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.TraditionalOpenSSL,
    serialization.NoEncryption(),
)
PUBLIC = KEY.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
CLIENT = "127.0.0.1"  # which sends for bank.example
STRANGER = "127.0.0.2"  # which sends for nobody
NAMES = {
    "bank.example": {"TXT": [f"v=spf1 ip4:{CLIENT} -all"]},
    "_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]},
    "a._domainkey.bank.example": {"TXT": [f"v=DKIM1; k=rsa; p={b64encode(PUBLIC).decode()}"]},
    "quiet.example": {"TXT": ["v=spf1 -all"]},
    "_dmarc.quiet.example": {"TXT": ["v=DMARC1; p=quarantine"]},
    "_dmarc.down.example": None,
    "3.100.51.198.in-addr.arpa": {"PTR": ["mx.alumni.example"]},
    "4.100.51.198.in-addr.arpa": {"PTR": ["mx.alumni.example"]},  # which is a lie
    "mx.alumni.example": "198.51.100.3",
}
ALICE = "alice@office.example"


def message(domain: str = "bank.example", *, is_signed: bool = False) -> bytes:
    """A message with an author there, perhaps with a signature of that domain."""
    content = b"From: ceo@%b\r\nTo: %b\r\nSubject: money\r\n\r\nSend it.\r\n" % (
        domain.encode(),
        ALICE.encode(),
    )
    if is_signed:
        content = dkim.sign(content, b"a", domain.encode(), PEM) + content
    return content


class AuthenticationTests(SynchronousTestCase):
    """A server whose clients on loopback are strangers."""

    if dkim is None:
        skip = "dkimpy is not installed"

    def serve(
        self, workers: int = 1, domains: Mapping[str, Any] | None = None, **keys: Any
    ) -> None:
        """Begin to serve, with these keys of `authentication`."""
        config = configuration(
            resolver=[answering(self, NAMES)],
            relay={"networks": [], "xclient": ["127.0.0.1"]},
            authentication=keys,
            queue={"workers": workers, "retry": ["1s"]},
            domains=domains or {"office.example": local_domain()},
        )
        self.server = Server(self, config)
        self.server.start()
        self.inbox = self.server.folder / "mail" / "office.example" / "alice"
        self.junk = self.inbox / ".Junk"

    def send(
        self,
        content: bytes,
        source: str = CLIENT,
        reverse_path: str = "x@bank.example",
        behind: str = "",
        recipient: str = ALICE,
    ) -> str:
        """Send a message from one of our addresses; returns the beginning of its last reply.

        `behind`: the client that a proxy speaks for.
        """
        port = self.server.ports["smtp"]
        with smtplib.SMTP(
            "127.0.0.1", port, "client.example", DEADLINE, source_address=(source, 0)
        ) as client:
            client.ehlo()
            if behind:
                client.docmd("XCLIENT", f"ADDR={behind}")
                client.ehlo()
            client.mail(reverse_path)
            client.rcpt(recipient)
            code, text = client.data(content)
        self.reply = text.decode()
        return f"{code} {self.reply[:6].strip()}"

    @property
    def queue_id(self) -> str:
        """The queue id of the last message that was sent."""
        return self.reply.split()[-1]

    def received(self, folder: Any, count: int = 1) -> bytes:
        """The last message in a Maildir, once there are so many."""
        return wait_for_mail(folder, count)[-1]

    def results(self, content: bytes) -> str:
        """What our server says of a message."""
        first, *_ = header_of(content, "Authentication-Results")
        self.assertTrue(first.startswith("mail.office.example;"), first)
        return first

    def test_quarantine(self) -> None:
        """A forgery goes to the folder for junk by default, honest mail does not; all is told."""
        self.serve()
        forged = b"Authentication-Results: mail.office.example; dmarc=pass\r\n" + message()
        self.assertEqual(self.send(forged, STRANGER), "250 2.0.0")
        content = self.received(self.junk)
        self.assertEqual(header_of(content, "X-Spam"), ["Yes"])
        self.assertIn("spf=fail", self.results(content))
        self.assertIn("dmarc=fail", self.results(content))
        self.assertEqual(len(header_of(content, "Authentication-Results")), 1)
        self.assertEqual(mail_in(self.inbox), [])

        self.assertEqual(self.send(message()), "250 2.0.0")  # by SPF alone
        content = self.received(self.inbox)
        self.assertIn("dmarc=pass", self.results(content))
        self.assertEqual(header_of(content, "X-Spam"), [])

        signed = message(is_signed=True)
        for number, reverse_path in enumerate(("x@else.example", ""), 2):
            self.assertEqual(self.send(signed, STRANGER, reverse_path), "250 2.0.0")
            content = self.received(self.inbox, number)
            self.assertIn("dkim=pass header.d=bank.example", self.results(content))
            self.assertIn("dmarc=pass", self.results(content))

        changed = signed.replace(b"Send it", b"Send me all of it")
        self.send(changed, STRANGER)
        self.assertIn("dkim=fail", self.results(self.received(self.junk, 2)))
        self.send(message(), CLIENT, "")  # a null sender, without a signature
        self.assertIn("spf=none", self.results(self.received(self.junk, 3)))
        self.assertIn(
            "from bank.example: spf=fail dkim=none dmarc=fail action=junk", self.server.log
        )

    def test_reject(self) -> None:
        """By choice it is refused while the client is there, in words for people."""
        self.serve(dmarc="reject", workers=2)
        self.assertEqual(self.send(message(), STRANGER), "550 5.7.26")
        for word in ("DMARC", "bank.example", "p=reject"):
            self.assertIn(word, self.reply)
        self.assertEqual(self.send(message("quiet.example"), STRANGER), "250 2.0.0")
        self.received(self.junk)
        self.assertIn("action=reject", self.server.log)

    def test_no_dns(self) -> None:
        """Without an answer mail is taken, or put off by choice."""
        self.serve()
        self.assertEqual(self.send(message("down.example"), STRANGER), "250 2.0.0")
        self.assertIn("dmarc=temperror", self.results(self.received(self.inbox)))
        self.server.kill()
        self.serve(on_dns_error="defer")
        self.assertEqual(self.send(message("down.example"), STRANGER, ""), "451 4.4.3")
        self.assertIn("down.example", self.reply)

    def test_forwarder(self) -> None:
        """One that is trusted by its confirmed name may bring what fails."""
        self.serve(dmarc="reject", trusted_forwarders=["mx.alumni.example"])
        self.assertEqual(self.send(message(), behind="198.51.100.3"), "250 2.0.0")
        results = self.results(self.received(self.inbox))
        self.assertIn('dmarc=fail reason="trusted forwarder"', results)
        for client in ("198.51.100.4", "198.51.100.5"):
            self.assertEqual(self.send(message(), behind=client), "550 5.7.26")

    def test_spf(self) -> None:
        """By choice SPF alone refuses, but for what a signature vouches for."""
        self.serve(spf="reject", dmarc="record")
        self.assertEqual(self.send(message(), STRANGER, "x@quiet.example"), "550 5.7.23")
        self.assertEqual(self.send(message(is_signed=True), STRANGER), "250 2.0.0")

    def test_hold(self) -> None:
        """Junk is kept for the operator, who reads why; released, it is in the Maildir."""
        self.serve(junk="hold")
        self.assertEqual(self.send(message(), STRANGER), "250 2.0.0")
        listed = self.mta("queue", "list")
        self.assertIn("junk: DMARC: bank.example wants mail like this rejected", listed)
        self.assertEqual(mail_in(self.junk), [])
        self.mta("queue", "release", self.queue_id)
        self.assertEqual(header_of(self.received(self.inbox), "X-Spam"), ["Yes"])

    def test_header(self) -> None:
        """By choice the field is all."""
        self.serve(junk="header")
        self.send(message(), STRANGER)
        self.assertEqual(header_of(self.received(self.inbox), "X-Spam"), ["Yes"])

    def test_restart(self) -> None:
        """What was taken for junk before a crash is junk after it."""
        self.serve()
        self.inbox.parent.mkdir(parents=True)
        self.inbox.write_text("no Maildir")  # so that the message waits
        self.assertEqual(self.send(message(), STRANGER), "250 2.0.0")
        self.server.kill()
        self.inbox.unlink()
        self.server.start()
        self.received(self.junk)

    def test_other_servers(self) -> None:
        """By LMTP and by SMTP junk arrives with its mark, after a crash too; other mail without."""
        behind = Server(self, configuration(listen=[listener("lmtp")]))
        behind.start()
        sink = Sink(self)
        lmtp = {"deliver": f"lmtp://127.0.0.1:{behind.ports['lmtp']}", "mailboxes": "any"}
        smtp = {"deliver": f"smtp://127.0.0.1:{sink.port}", "mailboxes": "any"}
        self.serve(domains={"office.example": lmtp, "branch.example": smtp})
        to = (ALICE, "bob@branch.example")
        for domain in ("office.example", "branch.example"):
            self.mta("queue", "hold", "--new", "--domain", domain)
        for content, source in ((message(), STRANGER), (message(), CLIENT)):
            for recipient in to:
                self.assertEqual(self.send(content, source, recipient=recipient), "250 2.0.0")
        self.server.kill()
        self.server.start()
        for domain in ("office.example", "branch.example"):
            self.mta("queue", "release", "--new", "--domain", domain)
        for mail in (
            wait_for_mail(behind.folder / "mail" / "office.example" / "alice", 2),
            sink.wait_for_mail(2),
        ):
            marks = [
                (header_of(each, "X-Spam"), "dmarc=fail" in self.results(each)) for each in mail
            ]
            self.assertCountEqual(marks, [(["Yes"], True), ([], False)])

    def test_trace(self) -> None:
        """The life of a message tells how it was judged."""
        self.serve()
        self.send(message(), STRANGER)
        self.received(self.junk)
        log = self.server.folder / "log"
        log.write_text(self.server.log)
        found = self.mta("trace", self.queue_id, "--log", str(log))
        self.assertIn("dmarc=fail action=junk", found)

    def test_turned(self) -> None:
        """An office believes its relay, which tells what it found; and no field of a stranger."""
        relay = Provider(
            self,
            {"methods": ["atrn"], "linger": "1h"},
            resolver=[answering(self, NAMES)],
            relay={"networks": []},
            authentication={"dmarc": "record"},
        )
        relay.start()
        self.server = relay
        believing = b"Authentication-Results: other.example; dmarc=fail policy.dmarc=reject\r\n"
        for content in (message(), believing + message(is_signed=True)):
            self.assertEqual(self.send(content, STRANGER), "250 2.0.0")
        customer = office(self, relay, every="1s", keys={"authentication": {}})
        customer.start()
        inbox = customer.folder / "mail" / "office.example" / "alice"
        (junk,) = wait_for_mail(inbox / ".Junk", 1)
        (good,) = wait_for_mail(inbox, 1)
        self.assertEqual(header_of(junk, "X-Spam"), ["Yes"])
        self.assertIn("dmarc=pass", header_of(good, "Authentication-Results")[0])
        self.assertEqual(len(header_of(good, "Authentication-Results")), 2)

    def mta(self, *arguments: str) -> str:
        """The output of a command."""
        environment = source_environment() | {"MTA_CONFIG": str(self.server.config)}
        return subprocess.run(
            [*MTA, *arguments], env=environment, capture_output=True, text=True, check=True
        ).stdout
