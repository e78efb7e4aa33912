"""Our signatures before other programs, and theirs before us."""

from __future__ import annotations

import time
from itertools import product

import dkim
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.authentication.dkim_cases import (
    ED25519,
    RSA,
    RSA_KEY,
    DKIMCase,
    resolver,
    signed,
)
from tests.authentication.odd_mail import ODD_MAIL, READ_BY_US_ALONE
from tests.authentication.test_dkim import MESSAGE
from tests.interop.verifiers import Dkimpy, OpenDKIM, Rspamd

PEM = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

MESSAGES = (
    MESSAGE,
    b"From: alice@example.com\r\n\r\n",
    b"From: alice@example.com\r\n\r\n\r\n \t\r\n\r\n",
    b"FROM:  alice@example.com \t\r\nSubject:\r\n\r\n  a\t b \r\n\r\n..\r\n\r\n\r\n",
    "From: alice@example.com\r\nSubject: Grüße\r\n\r\nGrüße\r\n".encode(),
    b"To: a@b.example\r\nFrom: a@example.com\r\nTo: c@d.example,\r\n\t e@f.example\r\n\r\na\r\n",
)

DKIMPY = Dkimpy(resolver())
ODD = {name: content for name, content in ODD_MAIL.items() if name not in READ_BY_US_ALONE}
FORMS = tuple(product((b"simple", b"relaxed"), repeat=2))

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


class DkimpyTests(DKIMCase):
    """dkimpy, both ways."""

    @given(contents)
    def test_it_verifies_ours(self, content: bytes) -> None:
        """Signatures of both kinds, on messages of all forms."""
        whole = signed(content, RSA, ED25519, now=time.time())
        self.assertEqual(DKIMPY.words(whole), ["pass", "pass"])

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
        self.assertEqual(word == "pass", dkim.verify(field + other, dnsfunc=DKIMPY.key_text))

    def test_odd_mail(self) -> None:
        """Messages as programs write them, both ways, in all canonicalisations."""
        for name, content in ODD.items():
            whole = signed(content, RSA, ED25519, now=time.time())
            self.assertEqual(DKIMPY.words(whole)[:2], ["pass", "pass"], name)
            for forms in FORMS:
                field = dkim.sign(content, b"rsa", b"example.com", PEM, canonicalize=forms)
                self.assertEqual(self.words(field + content, now=time.time())[0], "pass", name)


class OpenDKIMTests(DKIMCase):
    """OpenDKIM, both ways, in its test mode."""

    def setUp(self) -> None:
        self.opendkim = OpenDKIM(self, resolver())

    def test_it_verifies_ours(self) -> None:
        """Both kinds; a changed message fails."""
        for content in MESSAGES:
            whole = signed(content, RSA, ED25519, now=time.time())
            self.assertEqual(self.opendkim.words(whole), ["pass", "pass"], whole)
            self.assertEqual(self.opendkim.words(whole + b"changed\r\n"), ["fail", "fail"], whole)

    def test_we_verify_its(self) -> None:
        """Its field, in both canonicalisations of the body."""
        for body, content in product(["simple", "relaxed"], MESSAGES):
            self.assertEqual(self.word_on_its(content, body), "pass", content)

    @settings(max_examples=25, deadline=None)
    @given(contents, st.sampled_from(["simple", "relaxed"]))
    def test_both_ways(self, content: bytes, body: str) -> None:
        """Messages of all forms."""
        whole = signed(content, RSA, ED25519, now=time.time())
        self.assertEqual(self.opendkim.words(whole), ["pass", "pass"])
        self.assertEqual(self.word_on_its(content, body), "pass")

    def test_odd_mail(self) -> None:
        """Messages as programs write them."""
        for name, content in ODD.items():
            whole = signed(content, RSA, ED25519, now=time.time())
            self.assertEqual(self.opendkim.words(whole)[:2], ["pass", "pass"], name)
            for body in ("simple", "relaxed"):
                self.assertEqual(self.word_on_its(content, body), "pass", name)

    def word_on_its(self, content: bytes, body: str) -> str:
        """Our word for its signature of a message."""
        lines = ["Domain example.com", "Selector rsa", "SignatureAlgorithm rsa-sha256"]
        field = self.opendkim.field(content, PEM, *lines, f"Canonicalization relaxed/{body}")
        return self.words(field + content, now=time.time())[0]


class RspamdTests(DKIMCase):
    """rspamd, which looks for the keys in a DNS."""

    def test_it_verifies_ours(self) -> None:
        """Both kinds; a changed message fails.

        The last of the messages has two To: fields, for which rspamd refuses any signature.
        """
        rspamd = Rspamd(self, resolver())
        for content in MESSAGES[:-1]:
            whole = signed(content, RSA, ED25519, now=time.time())
            self.assertEqual(rspamd.words(whole), ["pass", "pass"], whole)
            self.assertEqual(rspamd.words(whole + b"changed\r\n"), ["R_DKIM_REJECT"], whole)
        for name, content in ODD.items():
            whole = signed(content, RSA, ED25519, now=time.time())
            self.assertEqual(rspamd.words(whole)[:2], ["pass", "pass"], name)
