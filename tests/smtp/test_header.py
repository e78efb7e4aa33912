"""The header section of a message."""

from __future__ import annotations

from collections.abc import Sequence
from email.parser import BytesHeaderParser
from email.policy import compat32

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.smtp import header
from mta.smtp.header import MAX_HEADER, HeaderSection
from tests.smtp.pieces import cut, cut_content, octets, places, single_octets

FOLDED = b"From: Alice\r\n <alice@a.example>\r\nTo:\r\n\tb@a.example,\r\n \r\n c@a.example\r\n"

words = st.sampled_from(
    [b"a", b"from", b"Subject", b" ", b"\t", b":", b"\r\n", b"\r\n ", b"\r\n\t", b"<x@y>"]
)


class FieldTests(SynchronousTestCase):
    """Fields in all forms that readers take."""

    def test_folded_fields(self) -> None:
        """A continuation line belongs to its field, folded by a blank or a tab."""
        for section in (FOLDED, FOLDED.replace(b"\r\n", b"\n")):
            self.assertEqual(header.values(section, b"from"), [b"Alice <alice@a.example>"])
            self.assertEqual(header.values(section, b"to"), [b"b@a.example,  c@a.example"])
            self.assertEqual(len(header.fields(section)), 2)
            self.assertEqual(b"".join(header.fields(section)), section)

    def test_obsolete_and_odd_forms(self) -> None:
        """White space before the colon, any case, no line end at the end."""
        section = b"FROM \t: a\r\nfrom:b\r\nX-From: c\r\nFrom : d"
        self.assertEqual(header.values(section, b"from"), [b"a", b"b", b"d"])
        self.assertEqual(
            list(map(header.name, header.fields(section))), [b"from", b"from", b"x-from", b"from"]
        )

    def test_the_fields_end_where_a_line_is_none(self) -> None:
        """With or without an empty line."""
        for rest in (b"\r\nFrom: x\r\n", b"Dear all\r\nFrom: x\r\n", b"From\0: x\r\n", b": x\r\n"):
            self.assertEqual(header.fields(FOLDED + rest), header.fields(FOLDED))
            self.assertEqual(header.end_of_fields(FOLDED + rest), len(FOLDED))
        self.assertEqual(header.end_of_fields(b" folded what?\r\nFrom: x\r\n"), 0)

    def test_fields_left_out(self) -> None:
        """Those of one name, as far as there are fields."""
        self.assertEqual(
            header.without(b"A: 1\nto : x\n y\nB: 2\nTO: z\nhello\nTo: w\n", b"to"),
            b"A: 1\nB: 2\nhello\nTo: w\n",
        )
        self.assertEqual(header.without(FOLDED, b"cc"), FOLDED)

    def test_as_the_email_package_reads_it(self) -> None:
        """Python's own reader finds the same names and values."""
        message = BytesHeaderParser(policy=compat32).parsebytes(FOLDED + b"\r\n")
        own = [
            (header.name(field).decode(), header.value(field).decode())
            for field in header.fields(FOLDED)
        ]
        theirs = [
            (name.lower(), value.replace("\r\n", "").strip()) for name, value in message.items()
        ]
        self.assertEqual(own, theirs)

    def test_a_hostile_header_section(self) -> None:
        """Neither a great many fields, folds or blanks take long, or more than they are."""
        for line in (
            b"a:\r\n",
            b"Received:\r\n",
            b"from \r\n",
            b"from" + b" " * 5000,
            b"from:\r\n \r\n",
        ):
            section = (line * MAX_HEADER)[:MAX_HEADER]
            header.fields(section)
            header.values(section, b"from")
            header.without(section, b"received")

    @given(st.lists(words, max_size=12).map(b"".join))
    def test_whatever_comes(self, section: bytes) -> None:
        """Fields and what follows them are all there is, and each is found by its name."""
        end = header.end_of_fields(section)
        fields = header.fields(section)
        self.assertEqual(b"".join(fields), section[:end])
        for field in fields:
            self.assertTrue(header.begins_field(field))
            self.assertIn(header.value(field), header.values(section[:end], header.name(field)))
        found = [field for field in fields if header.name(field) == b"from"]
        self.assertEqual(header.count(section[:end], b"from"), len(found))


class ReadingTests(SynchronousTestCase):
    """Header sections of content that is there."""

    def section(self, content: bytes) -> bytes:
        """The header section of content in three pieces, of which the rest is the body."""
        source = cut_content(content, [3, 20])
        section = self.successResultOf(Deferred.fromCoroutine(source.header()))

        async def body() -> bytes:
            return b"".join([piece async for piece in source.body()])

        rest = self.successResultOf(Deferred.fromCoroutine(body()))
        self.assertEqual(section + rest, content)
        self.assertEqual(header.split(content), (section, rest))
        return section

    def test_it_is_read_as_far_as_it_goes(self) -> None:
        """Up to the empty line, or the end."""
        self.assertEqual(self.section(FOLDED + b"\r\n" + b"x" * 100), FOLDED + b"\r\n")
        self.assertEqual(self.section(FOLDED), FOLDED)
        self.assertEqual(self.section(b"\r\nbody"), b"\r\n")


class HeaderSectionTests(SynchronousTestCase):
    """The header section at the start of content."""

    def split(self, pieces: Sequence[bytes]) -> tuple[bytes, bytes, bool]:
        """The header section, what follows it, and whether it is complete."""
        header, rest = HeaderSection(), b""
        for piece in pieces:
            rest += header.feed(piece)
        return header.octets, rest, header.complete

    def test_the_empty_line_ends_it(self) -> None:
        """The empty line belongs to neither, and is kept with the header section."""
        self.assertEqual(
            self.split([b"A: b\r\nC: d\r\n\r\nbody\r\n\r\n"]),
            (b"A: b\r\nC: d\r\n\r\n", b"body\r\n\r\n", True),
        )

    def test_there_may_be_none(self) -> None:
        """Content that begins with an empty line has an empty header section."""
        self.assertEqual(self.split([b"\r\nbody\r\n"]), (b"\r\n", b"body\r\n", True))
        self.assertEqual(self.split([b"\r", b"\n"]), (b"\r\n", b"", True))

    def test_it_may_be_all(self) -> None:
        """Content without an empty line is header section as far as we know."""
        self.assertEqual(self.split([b"A: b\r\n", b"C: d\r\n"]), (b"A: b\r\nC: d\r\n", b"", False))

    def test_it_is_bounded(self) -> None:
        """Over the limit the rest counts as body, however it arrives."""
        limit = MAX_HEADER
        for stream in (b"x" * (limit + 10), b"x" * (limit + 10) + b"\r\n\r\nbody"):
            expected = (b"x" * limit, stream[limit:], True)
            self.assertEqual(self.split([stream]), expected)
            self.assertEqual(self.split([stream[:limit], *single_octets(stream[limit:])]), expected)

    def test_the_end_at_the_limit_is_still_seen(self) -> None:
        """A header section of just the limit is whole."""
        limit = MAX_HEADER
        stream = b"x" * (limit - 3) + b"\r\n\r\nbody"
        expected = (b"x" * (limit - 3) + b"\r\n\r\n", b"body", True)
        self.assertEqual(self.split([stream]), expected)
        self.assertEqual(self.split(cut(stream, range(limit - 5, limit + 5))), expected)

    def test_fields_are_counted_by_name(self) -> None:
        """In any case; at the start of a line only; not in a continuation."""
        header = HeaderSection()
        header.feed(b"Received: a\r\n by Received: b\r\nreceived: c\r\nX-Received: d\r\n\r\n")
        self.assertEqual(header.count(b"received"), 2)
        self.assertEqual(header.count(b"date"), 0)

    @given(octets, places)
    def test_any_cutting_gives_the_same(self, content: bytes, at: list[int]) -> None:
        """And nothing is lost."""
        whole = self.split([content])
        self.assertEqual(self.split(cut(content, at)), whole)
        self.assertEqual(whole[0] + whole[1], content)

    @given(st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC:\r\n d\r\n"]), octets)
    def test_fields_and_body_are_told_apart(self, fields: bytes, body: bytes) -> None:
        """The first empty line decides."""
        self.assertEqual(self.split([fields + b"\r\n" + body]), (fields + b"\r\n", body, True))
