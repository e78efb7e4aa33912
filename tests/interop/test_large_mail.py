"""Large messages, looked at on their way in: they are never in memory as a whole."""

from __future__ import annotations

import time
from base64 import b64encode
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.trial.unittest import SynchronousTestCase

from mta.authentication.dkim.body import BodyHasher
from mta.authentication.dkim.signing import SIGNED_BODY, SigningKey, signature_fields
from tests.interop.filters import ScriptedMilter, milters
from tests.interop.name_server import answering
from tests.processes import Server, configuration, header_of

MIB = 1024 * 1024
SIZES = (25 * MIB, 50 * MIB)
MAX_GROWTH = 16 * MIB  # octets: two chunks for each of those that look, and what threads take
KEY = rsa.generate_private_key(65537, 2048)
PUBLIC = KEY.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
NAMES = {
    "bank.example": {"TXT": ["v=spf1 ip4:127.0.0.1 -all"]},
    "_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]},
    "a._domainkey.bank.example": {"TXT": [f"v=DKIM1; k=rsa; p={b64encode(PUBLIC).decode()}"]},
}
ALICE = "alice@office.example"
SECTION = b"From: ceo@bank.example\r\nTo: alice@office.example\r\nSubject: large\r\n\r\n"
LINE = b"0123456789 abcdefghijklmnopqrstuvwxyz  ABCDEFGHIJKLMNOPQRSTUVWXYZ trailing blanks   \r\n"


def signed(size: int) -> bytes:
    """A signed message with a body of about so many octets."""
    body = LINE * (size // len(LINE))
    hasher = BodyHasher({SIGNED_BODY})
    hasher.feed(body)
    hasher.end()
    keys = [SigningKey("bank.example", "a", KEY)]
    return signature_fields(SECTION, hasher.digest(SIGNED_BODY), keys, time.time()) + SECTION + body


class LargeMailTests(SynchronousTestCase):
    """A server with authentication, with a filter, and with both."""

    def serve(self, **keys: Any) -> None:
        """Begin to serve, and take a small message, so that all is in use."""
        if not Path("/proc/self/status").exists():
            self.skipTest("there is no /proc to see memory in")
        config = configuration(
            relay={"networks": []},
            limits={"message_size": "60MiB"},
            resolver=[answering(self, NAMES)],
            **keys,
        )
        self.server = Server(self, config)
        self.server.start()
        self.server.send(signed(10**5), ALICE, reverse_path="ceo@bank.example")
        self.inbox = "office.example/alice"
        self.server.wait_for_mail(self.inbox)

    def take_large_mail(self) -> list[bytes]:
        """Take a message of each size; returns their header sections."""
        sections = []
        for count, size in enumerate(SIZES, 2):
            before = self.server.most_memory
            self.server.send(signed(size), ALICE, reverse_path="ceo@bank.example")
            mail = self.server.wait_for_mail(self.inbox, count)[-1]
            self.assertGreater(len(mail), size * 0.97)
            self.assertLess(self.server.most_memory - before, MAX_GROWTH, size)
            sections.append(mail.partition(b"\n\n")[0] + b"\n\n")
        return sections

    def test_authentication(self) -> None:
        """The signature is verified over all of it."""
        self.serve(authentication={})
        for section in self.take_large_mail():
            (results,) = header_of(section, "Authentication-Results")
            self.assertIn("dkim=pass", results)
            self.assertIn("dmarc=pass", results)

    def test_filter(self) -> None:
        """It is told all of it, and may put something else in its place."""
        filter = ScriptedMilter(self)
        self.serve(milters=milters(filter.socket))
        filter.script(calls=[["addheader", "X-Seen", "1"]])
        for section in self.take_large_mail():
            self.assertEqual(header_of(section, "X-Seen"), ["1"])

    def test_both(self) -> None:
        """Each reads along."""
        filter = ScriptedMilter(self)
        self.serve(authentication={}, milters=milters(filter.socket))
        for section in self.take_large_mail():
            self.assertIn("dkim=pass", header_of(section, "Authentication-Results")[0])
