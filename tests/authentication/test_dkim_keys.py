"""Key records and tag lists."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.authentication.dkim import tags
from mta.authentication.dkim.key_record import KeyRecord


class TagTests(SynchronousTestCase):
    """Lists of tags."""

    def test_lists(self) -> None:
        """White space and the last semicolon mean nothing."""
        for octets in (b"a=1;b=x = y", b" a =\r\n\t1 ; b= x = y ;", b"a=1; b=x = y; ;"):
            self.assertEqual(tags.parse(octets), {"a": "1", "b": "x = y"})
        self.assertEqual(tags.parse("d=bücher.example".encode()), {"d": "bücher.example"})

    def test_no_lists(self) -> None:
        """A tag that is there twice, a name that is none, and what is no text."""
        for octets in (
            b"a=1; a=2",
            b"1=a",
            b"a b=1",
            b"=1",
            b"text",
            b"a=\xff",
            b"a=" + b"x" * 20_000,
        ):
            with self.assertRaises(ValueError, msg=octets[:20]):
                tags.parse(octets)

    def test_without_a_value(self) -> None:
        """All octets but those of the value stay, white space before it too."""
        for octets, left in (
            (b" a=1; b =\r\n x\r\n y ;\tbh=b=", b" a=1; b =;\tbh=b="),
            (b"b=xyz", b"b="),
            (b" bb=1; b=\r\n\t", b" bb=1; b="),
        ):
            self.assertEqual(tags.without_value(octets, b"b"), left)

    @given(st.binary(max_size=60))
    def test_any_octets(self, octets: bytes) -> None:
        """Nothing but ValueError comes of any octets."""
        for parse in (tags.parse, KeyRecord.parse):
            with contextlib.suppress(ValueError):
                parse(octets)


class KeyRecordTests(SynchronousTestCase):
    """Key records."""

    def test_records(self) -> None:
        """The tags of a record, and their defaults."""
        record = KeyRecord.parse(
            b"v=DKIM1; k=ed25519; h=sha1:sha256; s=email : x; t=y:s; n=a; p=AAEC"
        )
        self.assertEqual(record.key, b"\0\1\2")
        self.assertEqual(record.key_type, "ed25519")
        self.assertEqual((record.hashes, record.services), (["sha1", "sha256"], ["email", "x"]))
        self.assertTrue(record.testing and record.is_strict)
        record = KeyRecord.parse(b"p= AA\tEC ;")
        self.assertEqual((record.key, record.key_type, record.hashes), (b"\0\1\2", "rsa", None))
        self.assertFalse(record.testing or record.is_strict)
        self.assertEqual(KeyRecord.parse(b"v=DKIM1; p=").key, b"")

    def test_no_records(self) -> None:
        """Texts of other kinds."""
        for octets in (
            b"",
            b"v=spf1 -all",
            b"v=DKIM1",
            b"p=A; v=DKIM1",
            b"v=DKIM2; p=AAEC",
            b"p=?",
        ):
            with self.assertRaises(ValueError, msg=octets):
                KeyRecord.parse(octets)
