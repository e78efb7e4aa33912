"""The canonical body, and its hashes."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.authentication.dkim.body import BodyForm, BodyHasher

SIMPLE, RELAXED = BodyForm(False), BodyForm(True)

# What matters to the canonicalisations, in all mixtures.
bodies = st.lists(
    st.sampled_from([b"a", b"bc", b" ", b"  ", b"\t", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"."]),
    max_size=25,
).map(b"".join)


def simple(body: bytes) -> bytes:
    """The simple canonicalisation, as RFC 6376 section 3.4.3 tells it."""
    while body.endswith(b"\r\n"):
        body = body[:-2]
    return body + b"\r\n"


def relaxed(body: bytes) -> bytes:
    """The relaxed canonicalisation, as RFC 6376 section 3.4.4 tells it."""
    body = re.sub(rb"[ \t]+", b" ", body)
    body = re.sub(rb" (?=\r\n|\Z)", b"", body)
    while body.endswith(b"\r\n"):
        body = body[:-2]
    return body + b"\r\n" if body else b""


class BodyTests(SynchronousTestCase):
    """Hashes of bodies in pieces."""

    def hashed(self, pieces: list[bytes], *forms: BodyForm) -> list[tuple[bytes, int]]:
        """Hash and length of a body in each form."""
        hasher = BodyHasher(forms)
        for piece in pieces:
            hasher.feed(piece)
        hasher.end()
        return [(hasher.digest(form), hasher.length(form)) for form in forms]

    def assert_hashed(self, pieces: list[bytes]) -> None:
        """The hashes are those of the canonical forms."""
        body = b"".join(pieces)
        expected = [
            (hashlib.sha256(octets).digest(), len(octets))
            for octets in (simple(body), relaxed(body))
        ]
        self.assertEqual(self.hashed(pieces, SIMPLE, RELAXED), expected)

    def test_examples_of_the_rfc(self) -> None:
        """RFC 6376 section 3.4.5; the hashes of an empty body are in 3.4.3 and 3.4.4."""
        self.assertEqual(relaxed(b" C \r\nD \t E\r\n\r\n\r\n"), b" C\r\nD E\r\n")
        self.assert_hashed([b" C \r\nD \t E\r\n\r\n\r\n"])
        ((empty_simple, _), (empty_relaxed, _)) = self.hashed([], SIMPLE, RELAXED)
        self.assertEqual(b64encode(empty_simple), b"frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=")
        self.assertEqual(b64encode(empty_relaxed), b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")

    @given(bodies)
    @example(b" \r\n \t\r\n")
    @example(b"a\r\n\r\n\r")
    @example(b"\r\r\n")
    @example(b"\n\r\n")
    def test_one_octet_in_a_piece(self, body: bytes) -> None:
        """Every cut is the same as none."""
        self.assert_hashed([body])
        self.assert_hashed([body[place : place + 1] for place in range(len(body))])

    @given(st.lists(bodies, max_size=6))
    def test_any_pieces(self, pieces: list[bytes]) -> None:
        """Pieces may be empty, too."""
        self.assert_hashed(pieces)

    @given(bodies, st.integers(0, 40))
    def test_limits(self, body: bytes, limit: int) -> None:
        """With a limit the first octets count; the length is that of all."""
        canonical = relaxed(body)
        ((digest, length), (whole, _)) = self.hashed([body], BodyForm(True, limit), RELAXED)
        self.assertEqual(digest, hashlib.sha256(canonical[:limit]).digest())
        self.assertEqual(whole, hashlib.sha256(canonical).digest())
        self.assertEqual(length, len(canonical))

    def test_many_empty_lines(self) -> None:
        """Line ends are counted, and not kept, until something follows."""
        lines = [b"\r\n" * 30_000] * 10
        self.assert_hashed(lines)
        self.assert_hashed([b"a", *lines, b"b"])
        self.assert_hashed([b"\n" * 100_000, b"\r" * 100_000, b"\r\n"])
