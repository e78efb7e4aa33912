"""Our signatures before other programs, and theirs before us."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import dkim
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest

from mta.dns_answer import RecordType
from tests.authentication.dkim_cases import (
    ED25519,
    RSA,
    RSA_KEY,
    DKIMCase,
    record,
    resolver,
    signed,
)
from tests.authentication.test_dkim import MESSAGE

PEM = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

MESSAGES = (
    MESSAGE,
    b"From: alice@example.com\r\n\r\n",
    b"From: alice@example.com\r\n\r\n\r\n \t\r\n\r\n",
    b"FROM:  alice@example.com \t\r\nSubject:\r\n\r\n  a\t b \r\n\r\n..\r\n\r\n\r\n",
    "From: alice@example.com\r\nSubject: Grüße\r\n\r\nGrüße\r\n".encode(),
    b"To: a@b.example\r\nFrom: a@example.com\r\nTo: c@d.example,\r\n\t e@f.example\r\n\r\na\r\n",
)

names = st.sampled_from(
    [b"Subject", b"To", b"Cc", b"X-Other", b"List-Id", b"Sender", b"Received", b"MIME-Version"]
)
values = st.lists(
    st.sampled_from(
        [b"a", b"B c", b" ", b"  ", b"\t", b"\r\n ", b"\r\n\t", b"<x@y>", b";=", b"\xc3\xa9"]
    ),
    max_size=8,
).map(lambda words: b"x" + b"".join(words) + b"x")
fields = st.lists(st.tuples(names, values), max_size=8).map(
    lambda pairs: b"".join(name + b": " + value + b"\r\n" for name, value in pairs)
)
lines = st.lists(
    st.sampled_from([b"a", b"b c", b" ", b"\t", b"", b"d  \t e", b" f ", b".", b"\xe2\x82\xac"]),
    max_size=9,
)
bodies = lines.map(lambda each: b"".join(line + b"\r\n" for line in each))
contents = st.tuples(fields, fields, bodies).map(
    lambda parts: parts[0] + b"From: Alice <alice@example.com>\r\n" + parts[1] + b"\r\n" + parts[2]
)


def key_text(name: bytes, timeout: int = 5) -> bytes:
    """The key record of a name, as dkimpy asks for it."""
    answer = resolver().answers[name.decode().rstrip("."), RecordType.TXT]
    text: bytes = answer.records[0]
    return text


class DkimpyTests(DKIMCase):
    """dkimpy, both ways."""

    @given(contents)
    def test_it_verifies_ours(self, content: bytes) -> None:
        """Signatures of both kinds, on messages of all forms."""
        whole = signed(content, RSA, ED25519, now=time.time())
        for index in (0, 1):
            self.assertTrue(dkim.DKIM(whole).verify(index, key_text))

    @given(
        contents, st.sampled_from([b"simple", b"relaxed"]), st.sampled_from([b"simple", b"relaxed"])
    )
    def test_we_verify_its(self, content: bytes, head: bytes, body: bytes) -> None:
        """Its signatures, in all canonicalisations."""
        field = dkim.sign(content, b"rsa", b"example.com", PEM, canonicalize=(head, body))
        self.assertEqual(self.words(field + content, now=time.time()), ["pass"])

    @given(contents, contents)
    def test_both_refuse(self, content: bytes, other: bytes) -> None:
        """Where the signature is that of another message, both say so, or neither does."""
        field = signed(content, RSA, now=time.time())[: -len(content)]
        (word,) = self.words(field + other, now=time.time())
        self.assertEqual(word == "pass", dkim.verify(field + other, dnsfunc=key_text))


class OpenDKIMTests(DKIMCase):
    """OpenDKIM, both ways, by its program for tests."""

    def setUp(self) -> None:
        if shutil.which("opendkim") is None:
            raise SkipTest("OpenDKIM is not installed")
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def say(self, content: bytes, *lines: str) -> bytes:
        """What it prints of a message, with these lines of configuration."""
        configuration, message = self.folder / "opendkim.conf", self.folder / "message"
        configuration.write_text("\n".join(["Syslog no", *lines, ""]))
        message.write_bytes(content)
        command = ["opendkim", "-x", str(configuration), "-t", str(message), "-vv"]
        return subprocess.run(command, capture_output=True, timeout=60, check=True).stdout

    def test_it_verifies_ours(self) -> None:
        """RSA, which Debian's OpenDKIM knows alone; a changed message fails."""
        keys = self.folder / "keys"
        keys.write_bytes(b"rsa._domainkey.example.com " + record(RSA_KEY) + b"\n")
        for content in MESSAGES:
            whole = signed(content, RSA, now=time.time())
            for octets, said in ((whole, b"dkim=pass"), (whole + b"changed\r\n", b"dkim=fail")):
                self.assertIn(said, self.say(octets, "Mode v", f"TestPublicKeys {keys}"), octets)

    def test_we_verify_its(self) -> None:
        """Its field, in both canonicalisations of the body."""
        key = self.folder / "key.pem"
        key.write_bytes(PEM)
        lines = ["Mode s", "Domain example.com", "Selector rsa", f"KeyFile {key}"]
        lines += ["RequireSafeKeys no", "SignatureAlgorithm rsa-sha256"]
        for body, content in product(["simple", "relaxed"], MESSAGES):
            printed = self.say(content, *lines, f"Canonicalization relaxed/{body}")
            match = re.search(rb"hname='(DKIM-Signature)' hvalue='([^']*)'", printed)
            assert match is not None, printed
            field = match[1] + b": " + match[2].replace(b"\n", b"\r\n") + b"\r\n"
            self.assertEqual(self.words(field + content, now=time.time()), ["pass"], content)
