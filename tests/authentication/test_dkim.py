"""The verification of signatures."""

from __future__ import annotations

import re
from base64 import b64encode

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mta.authentication.dkim import DKIMResult, ResultCode, SigningKey, Verification
from mta.authentication.dkim.algorithms import (
    MAX_EXPONENT_BITS,
    MAX_RSA_BITS,
    MIN_RSA_BITS,
    sign,
)
from mta.authentication.dkim.body import BodyForm, BodyHasher
from mta.authentication.dkim.fields import Fields
from mta.authentication.dkim.signature import MAX_SIGNATURES
from mta.dns_answer import Answer, RecordType
from mta.interfaces import IResolver, ResolutionFailed
from mta.smtp import header
from mta.testing import FakeResolver
from tests.authentication.dkim_cases import (
    ED25519,
    ED25519_KEY,
    NOW,
    RSA,
    RSA_KEY,
    DKIMCase,
    record,
    resolver,
    signed,
)
from tests.authentication.dkim_examples import KEYS, RFC6376, RFC8463
from tests.authentication.odd_mail import ODD_MAIL

OTHER = rsa.generate_private_key(65537, 1024)
MESSAGE = (
    b"Received: from a by b\r\nFrom: Alice <alice@example.com>\r\nTo: carol@partner.example\r\n"
    b"Subject: A  folded\r\n\t subject\r\nDate: Fri, 27 Nov 2026 22:00:00 +0000\r\n"
    b"Message-ID: <1@example.com>\r\n\r\nHello \t world \r\n\r\nBye\r\n\r\n\r\n"
)


def signed_with(
    content: bytes = MESSAGE,
    *,
    key: SigningKey = RSA,
    h: str = "from:to:subject",
    c: str = "simple/simple",
    limit: int | None = None,
    **tags: str,
) -> bytes:
    """The content with a signature that has these tags; an empty one is left out."""
    section, body = header.split(content)
    form = BodyForm("/relaxed" in c, limit)
    hasher = BodyHasher([form])
    hasher.feed(body)
    hasher.end()
    algorithm = "rsa-sha256" if key is RSA else "ed25519-sha256"
    values = {
        "v": "1",
        "a": algorithm,
        "d": key.domain,
        "s": key.selector,
        "c": c,
        "h": h,
        "l": "" if limit is None else str(limit),
        "bh": b64encode(hasher.digest(form)).decode(),
        **tags,
    }
    text = "; ".join(f"{name}={value}" for name, value in values.items() if value)
    field = b"DKIM-Signature: " + text.encode() + b"; b="
    names = [name.strip().lower().encode() for name in h.split(":")]
    data = Fields(section).signed(names, field, is_relaxed=c.startswith("relaxed"))
    return field + b64encode(sign(key.key, data)) + b"\r\n" + content


@implementer(IResolver)
class SilentResolver(FakeResolver):
    """A DNS without answers."""

    async def query(self, name: str, kind: RecordType) -> Answer:
        """Raise ResolutionFailed."""
        self.asked.append(name)
        raise ResolutionFailed(name)


class ExampleTests(DKIMCase):
    """The examples of the RFCs."""

    def setUp(self) -> None:
        self.dns = FakeResolver({}, {})
        self.dns.answers = {(name, RecordType.TXT): Answer((text,)) for name, text in KEYS.items()}

    def test_rfc_6376(self) -> None:
        """Appendix A.2."""
        expected = DKIMResult(
            ResultCode.PASS,
            "example.com",
            "brisbane",
            "rsa-sha256",
            "joe@football.example.com",
            "AuUoFEfD",
        )
        self.assertEqual(self.verify(RFC6376, self.dns), [expected])

    def test_rfc_8463(self) -> None:
        """Appendix A.3: the signatures of two keys."""
        self.assertEqual(self.words(RFC8463, self.dns), ["pass", "pass"])
        self.assertEqual(self.words(RFC8463.replace(b"Joe.", b"Jo."), self.dns), ["fail", "fail"])


class VerificationTests(DKIMCase):
    """One signature in all its forms."""

    def test_forms(self) -> None:
        """Both algorithms, both canonicalisations of each part."""
        for key in (RSA, ED25519):
            for c in ("simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"):
                self.assertEqual(self.words(signed_with(key=key, c=c)), ["pass"], c)
        for c in ("", "simple", "relaxed"):  # simple is the default of each
            self.assertEqual(self.words(signed_with(c=c)), ["pass"], c)

    def test_no_signature(self) -> None:
        """There is nothing to look up, and nothing to hash."""
        verification = Verification(header.split(MESSAGE)[0], NOW)
        self.assertFalse(verification.needs_body)
        self.assertEqual((verification.lookups(resolver()), verification.check()), ([], []))

    def test_what_canonicalisations_allow(self) -> None:
        """A relaxed signature survives other white space, a simple one does not."""
        for old, new in (
            (b"A  folded\r\n\t subject", b"A folded subject"),
            (b"Subject:", b"SUBJECT :"),
            (b"Hello \t world \r\n", b"Hello world\r\n"),
        ):
            relaxed, simple = signed_with(c="relaxed/relaxed"), signed_with()
            self.assertEqual(self.words(relaxed.replace(old, new)), ["pass"], new)
            self.assertEqual(self.words(simple.replace(old, new)), ["fail"], new)
        more = signed_with() + b"\r\n\r\n"
        self.assertEqual(self.words(more), ["pass"])
        self.assertEqual(self.words(more + b"x"), ["fail"])

    def test_fields_are_taken_from_the_bottom(self) -> None:
        """A field on top is not signed, unless its name stands in h= once more."""
        top = b"Subject: another\r\n"
        self.assertEqual(self.words(top + signed_with()), ["pass"])
        self.assertEqual(self.words(signed_with().replace(b"Date:", top + b"Date:")), ["fail"])
        sealed = signed_with(h="from : subject:\tsubject:from")
        self.assertEqual(self.words(sealed), ["pass"])
        self.assertEqual(self.words(top + sealed), ["fail"])
        self.assertEqual(self.words(b"From: x@y\r\n" + sealed), ["fail"])
        twice = signed_with(top + MESSAGE, h="from:subject:subject")
        self.assertEqual(self.words(twice), ["pass"])

    def test_missing_tags(self) -> None:
        """Each required tag is required, once."""
        for tag in ("v", "a", "d", "s", "h", "bh", "b"):
            (result,) = self.verify(
                re.sub(rb"\b%s=[^;\r]*(; |(?=\r))" % tag.encode(), b"", signed_with())
            )
            self.assertEqual(result.result, ResultCode.NEUTRAL, tag)
            self.assertEqual(result.problem, f"{tag}= is missing")
        (result,) = self.verify(signed_with(d="example.com; d=example.com"))
        self.assertEqual((result.result, result.problem), (ResultCode.NEUTRAL, "d= is there twice"))

    def test_tags(self) -> None:
        """Values that are not known, not allowed, or not accepted."""
        for word, problem, tags in (
            ("neutral", "the version is not known", {"v": "2"}),
            ("neutral", "the algorithm is not known", {"a": "rsa-sha512"}),
            ("policy", "SHA-1 is not secure", {"a": "rsa-sha1"}),
            ("neutral", "the canonicalisation is not known", {"c": "relaxed/none"}),
            ("neutral", "its key is not in the DNS", {"q": "http"}),
            ("neutral", "d= or s= is no name", {"d": "exa mple.com"}),
            ("neutral", "d= or s= is no name", {"s": "a..b"}),
            ("neutral", "d= or s= is no name", {"d": "a." * 127 + "com"}),
            ("neutral", "bh= or b= is no base64", {"bh": "!"}),
            ("neutral", "t= is no number", {"t": "-1"}),
            ("neutral", "x= is no number", {"x": "9" * 77}),
            ("neutral", "it expires before it was made", {"t": "2000", "x": "2000"}),
            ("neutral", "h= has too many names", {"h": "from" + ":x" * 1000}),
            ("neutral", "i= is too long", {"i": "a" * 1000 + "@example.com"}),
            ("permerror", "From: is not signed", {"h": "to:subject"}),
            ("permerror", "i= is not in the domain of d=", {"i": "@example.org"}),
            ("permerror", "i= is not in the domain of d=", {"i": "alice@notexample.com"}),
            ("permerror", "i= is not in the domain of d=", {"i": "example.com"}),
            ("pass", "", {"i": "alice@EXAMPLE.com"}),
            ("pass", "", {"i": "alice@a.b.example.com"}),
            ("pass", "", {"q": "http:dns/txt"}),
            ("pass", "", {"d": "EXAMPLE.Com", "z": "unknown", "r": "y"}),
        ):
            (result,) = self.verify(signed_with(**tags))
            self.assertEqual((result.result.value, result.problem), (word, problem), tags)
            if "d" not in tags:
                self.assertEqual(result.domain, "example.com")

    def test_times(self) -> None:
        """A signature has an end, and a beginning; clocks may differ by some minutes."""
        for word, now, tags in (
            ("pass", 1000, {"t": "1000", "x": "2000"}),
            ("pass", 2299, {"t": "1000", "x": "2000"}),
            ("fail", 2301, {"t": "1000", "x": "2000"}),
            ("fail", 2301, {"x": "2000"}),
            ("pass", 701, {"t": "1000"}),
            ("policy", 699, {"t": "1000"}),
        ):
            self.assertEqual(self.words(signed_with(**tags), now=now), [word], (now, tags))

    def test_part_of_a_body(self) -> None:
        """What is added behind the octets of l= is not signed: such a body does not count."""
        length = len(MESSAGE.split(b"\r\n\r\n", 1)[1]) - 4
        content = signed_with(limit=length)
        self.assertEqual(self.words(content), ["pass"])
        self.assertEqual(self.words(content + b"more\r\n"), ["policy"])
        self.assertEqual(self.words(content[:-8]), ["fail"])
        self.assertEqual(self.words(signed_with(limit=0)), ["policy"])
        self.assertEqual(self.words(signed_with(limit=length + 1)), ["fail"])
        changed = content.replace(b"Alice", b"Mallory")
        self.assertEqual(self.words(changed + b"more\r\n"), ["fail"])

    def test_internationalised_names(self) -> None:
        """U-labels in d= and s=: the key is asked for by A-labels (RFC 8616)."""
        dns = FakeResolver({}, {})
        name = "xn--schlssel-95a._domainkey.xn--bcher-kva.example"
        dns.answers[name, RecordType.TXT] = Answer((record(RSA_KEY),))
        content = signed_with(d="bücher.example", s="schlüssel", i="jörg@x.bücher.example")
        (result,) = self.verify(content, dns)
        self.assertEqual(result.result, ResultCode.PASS)
        self.assertEqual(result.domain, "xn--bcher-kva.example")
        self.assertEqual(result.identity, "")  # which Authentication-Results can't show

    def test_nothing_odd_is_shown(self) -> None:
        """A result has no octet that could end the field that it is put into."""
        (result,) = self.verify(
            b'DKIM-Signature: v=1; a=x\r\n\ty; d=a;e=\0; s="; i=a b@c; b=(\r\n comment\r\n'
            + MESSAGE
        )
        self.assertEqual(
            (result.domain, result.selector, result.algorithm, result.identity), ("a", "", "", "")
        )
        self.assertEqual(result.signature, "")

    def test_signatures_are_bounded(self) -> None:
        """The first ones count, which are the newest."""
        content = signed(MESSAGE, *[RSA] * 3)
        junk = b"DKIM-Signature: v=1\r\n"
        self.assertEqual(self.words(content + b""), ["pass"] * 3)
        self.assertEqual(
            self.words(junk * (MAX_SIGNATURES - 1) + content),
            ["neutral"] * (MAX_SIGNATURES - 1) + ["pass"],
        )

    def test_signed_signatures(self) -> None:
        """A signature may cover others, and never itself."""
        inner = signed(MESSAGE, ED25519)
        content = signed_with(inner, h="from:dkim-signature:dkim-signature")
        self.assertEqual(self.words(content), ["pass", "pass"])
        self.assertEqual(self.words(content.replace(b"t=", b"T=")), ["fail", "fail"])

    def test_a_header_section_beyond_the_bound(self) -> None:
        """Fields that we do not know could be signed, or be those that are shown."""
        content = signed_with(
            MESSAGE.replace(b"To:", b"X: " + b"x" * header.MAX_HEADER + b"\r\nTo:")
        )
        (result,) = self.verify(content)
        self.assertEqual(result.result, ResultCode.POLICY)
        self.assertEqual(result.problem, "the header section is too long")

    def test_odd_messages(self) -> None:
        """Messages that are rarely as they should be."""
        start = b"From: alice@example.com\r\n"
        for content in (
            start + b"\r\n",  # no body
            start + b"\r\n\r\n\r\n",
            start + b"\r\nno line end",
            start + b"\r\nblanks \t",
            start + "Subject: Grüße\r\n\r\nGrüße\r\n".encode("latin-1"),
            start + "Subject: Grüße\r\n\r\nGrüße\r\n".encode(),
            start + b"Subject:\r\n\r\n \r\n\t\r\n.\r\n",
            start + b"Subject \t:\r\n\t\r\n a\r\n\tb \r\n\r\na\r\n",
            start + b"Bare: a\nb\rc\r\n\r\na\nb\rc\n\r\n\r",
            start * 2 + b"\r\nTwo authors\r\n",
            start + b"To: a@b.example\r\n" * 90 + b"X: " + b"y" * 100_000 + b"\r\n\r\nHuge\r\n",
            b"\r\nNo header section\r\n",
        ):
            self.assertEqual(
                self.words(signed(content, RSA, ED25519)), ["pass", "pass"], content[:99]
            )
        for name, content in ODD_MAIL.items():
            self.assertEqual(self.words(signed(content, RSA, ED25519))[:2], ["pass", "pass"], name)

    @given(st.data())
    def test_any_octet_counts(self, data: st.DataObject) -> None:
        """A message verifies however it is cut; with another octet it does not."""
        body = data.draw(st.binary(max_size=60)).replace(b"\r", b"r").replace(b"\n", b"\r\n")
        content = b"From: alice@example.com\r\nSubject: x\r\n\r\n" + body
        whole = signed(content, ED25519)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=4)))
        (result,) = self.verify(whole, cuts=cuts)
        self.assertEqual(result.result, ResultCode.PASS)
        place = data.draw(st.integers(0, len(content) - 1))
        octet = content[place]
        if octet in b"\r\n \t:":
            return  # another header, or nothing that counts
        start = len(whole) - len(content) + place
        changed = (
            whole[:start]
            + bytes([octet ^ 1 if octet not in b"\x0b\x0c!\x08" else 65])
            + whole[start + 1 :]
        )
        self.assertNotEqual(self.verify(changed)[0].result, ResultCode.PASS)

    @given(st.binary(max_size=80))
    def test_any_field(self, octets: bytes) -> None:
        """No field raises anything."""
        self.verify(b"DKIM-Signature: " + octets + b"\r\n" + MESSAGE)
        self.verify(signed_with().replace(b"v=1", octets.replace(b"\r\n\r\n", b"")))


class KeyTests(DKIMCase):
    """The keys in the DNS."""

    def outcome(self, *texts: bytes, key: SigningKey = RSA, **tags: str) -> tuple[str, str]:
        """The result of a signature with these key records."""
        dns = resolver(**{key.selector: texts})
        (result,) = self.verify(signed_with(key=key, **tags), dns)
        return result.result.value, result.problem

    def test_records(self) -> None:
        """What a record may say of its key."""
        for word, problem, text in (
            ("pass", "", record(RSA_KEY)),
            ("pass", "", record(RSA_KEY).removeprefix(b"v=DKIM1; ")),
            ("pass", "", record(RSA_KEY, b"h=sha1:sha256; s=email; n=note; x=y; ")),
            ("pass", "", record(RSA_KEY, b"s=*; t=s; ")),
            ("permerror", "the key is revoked", b"v=DKIM1; p="),
            ("permerror", "the key is not for SHA-256", record(RSA_KEY, b"h=sha1; ")),
            ("permerror", "the key is not for mail", record(RSA_KEY, b"s=tlsrpt; ")),
            ("permerror", "the key is for another algorithm", record(ED25519_KEY)),
            ("permerror", "the key is for another algorithm", record(RSA_KEY, b"k=x; ")),
            ("permerror", "the key can't be read", b"p=AAEC"),
            ("permerror", "there is no key: it is no key record", b"v=spf1 -all"),
            ("fail", "the signature is not that of the key", record(OTHER)),
        ):
            self.assertEqual(self.outcome(text), (word, problem), text)

    def test_no_answer(self) -> None:
        """No key is an error for good, no answer one that passes."""
        missing = FakeResolver({}, {})
        self.assertEqual(self.words(signed_with(), missing), ["permerror"])
        silent = SilentResolver({}, {})
        content = signed(MESSAGE, RSA, RSA)
        self.assertEqual(self.words(content, silent), ["temperror"] * 2)
        self.assertEqual(silent.asked, ["rsa._domainkey.example.com"])  # once
        verification = Verification(header.split(content)[0], NOW)
        results = verification.check()
        self.assertEqual(results[0].problem, "the key was not looked up in time")

    def test_several_records(self) -> None:
        """Each of them is tried, a bounded number; other texts at the name do not matter."""
        good, other = record(RSA_KEY), record(OTHER)
        self.assertEqual(self.outcome(b"v=spf1 -all", other, b"v=DKIM1; p=", good)[0], "pass")
        self.assertEqual(self.outcome(other, b"v=DKIM1; p=")[0], "fail")
        self.assertEqual(self.outcome(*[other] * 4, good)[0], "fail")

    def test_flags(self) -> None:
        """A key may be for its very domain alone, and a domain may only try."""
        strict = record(RSA_KEY, b"t=s; ")
        self.assertEqual(self.outcome(strict, i="@sub.example.com")[0], "permerror")
        self.assertEqual(self.outcome(strict, i="@example.com")[0], "pass")
        (result,) = self.verify(signed_with(), resolver(rsa=record(RSA_KEY, b"t=x:y; ")))
        self.assertTrue(result.testing)
        self.assertFalse(self.verify(signed_with())[0].testing)

    def test_sizes(self) -> None:
        """Short keys are not secure, and very long ones take long (RFC 8301)."""
        key = SigningKey("example.com", "rsa", OTHER)
        self.assertEqual(OTHER.key_size, MIN_RSA_BITS)
        self.assertEqual(self.words(signed(MESSAGE, key), resolver(rsa=record(OTHER))), ["pass"])
        for bits in (512, MIN_RSA_BITS - 1, MAX_RSA_BITS + 1):
            number = rsa.RSAPublicNumbers(65537, 2 ** (bits - 1) + 1)
            octets = number.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
            self.assertIn(
                self.outcome(b"p=" + b64encode(octets)),
                [("policy", f"the key has {bits} bits"), ("permerror", "the key can't be read")],
            )

    def test_exponents(self) -> None:
        """A long exponent makes a check a hundred times as long; honest ones are 3 or 65537."""
        modulus = RSA_KEY.public_key().public_numbers().n
        for bits in (MAX_EXPONENT_BITS + 1, modulus.bit_length() - 1):
            number = rsa.RSAPublicNumbers(2 ** (bits - 1) + 1, modulus)
            octets = number.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
            self.assertEqual(
                self.outcome(b"p=" + b64encode(octets)),
                ("policy", f"the key has an exponent of {bits} bits"),
            )

    def test_bare_rsa_key(self) -> None:
        """Some publish RSAPublicKey, without the name of the algorithm around it."""
        octets = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
        self.assertEqual(self.outcome(b"v=DKIM1; p=" + b64encode(octets))[0], "pass")

    def test_lookups_are_independent(self) -> None:
        """There is one for each key, and their order does not matter."""
        section, body = header.split(signed(MESSAGE, RSA, ED25519, RSA))
        verification = Verification(section, NOW)
        lookups = verification.lookups(resolver())
        self.assertEqual(len(lookups), 2)
        verification.feed(body)
        for lookup in reversed(lookups):
            self.successResultOf(Deferred.fromCoroutine(lookup))
        self.assertEqual([each.result.value for each in verification.check()], ["pass"] * 3)
