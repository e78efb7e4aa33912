"""What final delivery changes in content."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.delivery.final import final_pieces, trace_fields
from mta.mail import NULL_PATH, Mailbox
from mta.testing import ALICE, CAROL, FakeContent


def final(*pieces: bytes) -> bytes:
    """The final form of content that comes in pieces."""

    async def read() -> bytes:
        return b"".join([piece async for piece in final_pieces(FakeContent(*pieces))])

    result: list[bytes] = []
    Deferred.fromCoroutine(read()).addCallback(result.append)
    return result[0]


class FinalPiecesTests(SynchronousTestCase):
    """CRLF becomes LF, and Return-Path: leaves the header section; nothing else changes."""

    def test_line_ends(self) -> None:
        """Line ends are LF."""
        self.assertEqual(final(b"A: b\r\n\r\nc\r\nd\r\n"), b"A: b\n\nc\nd\n")

    def test_return_path_is_removed(self) -> None:
        """Whatever its case, folding and place: there is only one, and we write it."""
        content = (
            b"return-PATH : <a@b>\r\nA: 1\r\nReturn-Path:\r\n <x@y>\r\n\t(z)\r\nB: 2\r\n c\r\n\r\n"
        )
        self.assertEqual(final(content), b"A: 1\nB: 2\n c\n\n")

    def test_body_keeps_what_looks_like_a_field(self) -> None:
        """A Return-Path: line in the body is text."""
        for field in (b"", b"Return-Path: <y>\r\n"):
            content = b"A: 1\r\n" + field + b"\r\nReturn-Path: <x>\r\n"
            self.assertEqual(final(content), b"A: 1\n\nReturn-Path: <x>\n")

    def test_header_section_ends_where_a_line_is_no_field(self) -> None:
        """Text that was sent without an empty line before it is text."""
        content = b"Received: x\r\nDear all\r\nReturn-Path: <x>\r\n\r\n"
        self.assertEqual(final(content), b"Received: x\nDear all\nReturn-Path: <x>\n\n")

    def test_other_fields_with_that_beginning_stay(self) -> None:
        """The whole name counts."""
        self.assertEqual(final(b"Return-Path-Of: x\r\n\r\n"), b"Return-Path-Of: x\n\n")

    def test_bare_line_ends_stay(self) -> None:
        """Only CRLF is a line end; other octets are not ours to change."""
        self.assertEqual(final(b"A: b\r\n\r\n\rc\r\r\n\x00\xff\r"), b"A: b\n\n\rc\r\n\x00\xff\r")

    @given(st.lists(st.sampled_from([b"\r", b"\n", b" ", b":", b"Return-Path: x", b"a", b"\r\n"])))
    def test_pieces_do_not_matter(self, pieces: list[bytes]) -> None:
        """However content is cut, its final form is the same."""
        whole = b"".join(pieces)
        self.assertEqual(final(*pieces), final(whole))
        self.assertEqual(final(*(whole[n : n + 1] for n in range(len(whole)))), final(whole))

    @given(st.binary())
    def test_body_is_kept(self, body: bytes) -> None:
        """What follows the header section differs in line ends only."""
        self.assertEqual(final(b"A: b\r\n\r\n" + body), b"A: b\n\n" + body.replace(b"\r\n", b"\n"))


class TraceFieldTests(SynchronousTestCase):
    """The fields that final delivery adds."""

    def test_fields(self) -> None:
        """They name the reverse-path and the mailbox."""
        self.assertEqual(
            trace_fields(CAROL, ALICE),
            b"Return-Path: <carol@partner.example>\nDelivered-To: alice@example.com\n",
        )

    def test_null_reverse_path(self) -> None:
        """A notice comes from nobody."""
        self.assertTrue(trace_fields(NULL_PATH, ALICE).startswith(b"Return-Path: <>\n"))

    def test_no_address_adds_a_field(self) -> None:
        """A line end in an address stays inside its field."""
        fields = trace_fields(Mailbox("a\r\nX: y\n", "b"), ALICE)
        self.assertEqual(fields.count(b"\n"), 2)
        self.assertNotIn(b"\r", fields)
