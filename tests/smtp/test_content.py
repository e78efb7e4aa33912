"""Dot transparency, line ends and the header section."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from mta.smtp.content import END, DotReader, DotWriter, LineCheck
from tests.smtp.pieces import cut, octets, places, single_octets


def decoded(pieces: Sequence[bytes]) -> tuple[list[bytes], bytes, bool]:
    """The pieces of content, what follows it, and whether it ended."""
    reader, content, rest = DotReader(), [], b""
    for piece in pieces:
        if reader.ended:
            rest += piece
        else:
            part, rest = reader.decode(piece)
            content.append(part)
    return content, rest, reader.ended


def encoded(pieces: Sequence[bytes]) -> bytes:
    """The pieces as DATA sends them, with the end of content."""
    writer = DotWriter()
    return b"".join([*map(writer.encode, pieces), writer.end()])


class DotReaderTests(SynchronousTestCase):
    """Content as it arrives after DATA."""

    def assert_decoded(self, stream: bytes, content: bytes, rest: bytes = b"") -> None:
        """In one piece, and in single octets."""
        for pieces in ([stream], single_octets(stream), [b"", *single_octets(stream)]):
            parts, after, ended = decoded(pieces)
            self.assertEqual((b"".join(parts), after, ended), (content, rest, True))

    def test_the_end_of_content(self) -> None:
        """The first CRLF of the end belongs to the last line of content."""
        self.assert_decoded(b"hello\r\n.\r\n", b"hello\r\n")

    def test_what_follows_is_handed_back(self) -> None:
        """The next command may come in the same segment."""
        self.assert_decoded(b"hello\r\n.\r\nQUIT\r\n", b"hello\r\n", b"QUIT\r\n")

    def test_empty_content(self) -> None:
        """A dot may be the very first line."""
        self.assert_decoded(b".\r\nQUIT\r\n", b"", b"QUIT\r\n")

    def test_a_leading_dot_is_removed(self) -> None:
        """In the first line as in any other; one dot only."""
        self.assert_decoded(b"..\r\n...\r\n.a\r\nb.c\r\n.\r\n", b".\r\n..\r\na\r\nb.c\r\n")

    def test_only_crlf_dot_crlf_ends_content(self) -> None:
        """Bare line ends around a dot have been used for SMTP smuggling."""
        for forged in (b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r.\r\n", b"\r\n\0.\r\n"):
            self.assert_decoded(b"a" + forged + b"b\r\n.\r\n", b"a" + forged + b"b\r\n")

    def test_a_dot_line_with_a_bare_end_is_no_end(self) -> None:
        """The dot is transparency: it is removed, and the content goes on."""
        for forged in (b"\r\n.\n", b"\r\n.\r", b"\r\n.\r\r\n"):
            content = b"a" + forged.replace(b".", b"") + b"b\r\n"
            self.assert_decoded(b"a" + forged + b"b\r\n.\r\n", content)

    def test_end_after_a_bare_cr(self) -> None:
        """CR CRLF . CRLF: the second CR belongs to the CRLF."""
        self.assert_decoded(b"a\r\r\n.\r\n", b"a\r\r\n")

    def test_content_without_end(self) -> None:
        """What could begin the end is held back, the rest is given out."""
        parts, rest, ended = decoded([b"a\r\n.\r"])
        self.assertEqual((b"".join(parts), rest, ended), (b"a", b"", False))

    @given(octets, places)
    def test_any_cutting_gives_the_same_content(self, stream: bytes, at: list[int]) -> None:
        """And the same rest."""
        whole = stream + END + b"rest"
        parts, rest, ended = decoded(cut(whole, at))
        one, one_rest, _ = decoded([whole])
        self.assertEqual((b"".join(parts), rest, ended), (b"".join(one), one_rest, True))

    @given(octets, places)
    def test_no_piece_ends_inside_a_crlf(self, stream: bytes, at: list[int]) -> None:
        """A CR at the end of a piece is a bare one."""
        pieces, _, _ = decoded(cut(stream + END, at))
        content, place = b"".join(pieces), 0
        for piece in pieces:
            place += len(piece)
            self.assertNotEqual(content[place - 1 : place + 1] if piece else b"", b"\r\n")


class DotWriterTests(SynchronousTestCase):
    """Content as we send it after DATA."""

    def test_dots_are_stuffed_at_line_starts_only(self) -> None:
        """Also in the first line."""
        self.assertEqual(encoded([b".a\r\nb.c\r\n."]), b"..a\r\nb.c\r\n..\r\n.\r\n")

    def test_a_line_start_between_pieces(self) -> None:
        """The codec remembers where it is."""
        self.assertEqual(encoded([b"a\r", b"\n", b"", b".b\r\n"]), b"a\r\n..b\r\n.\r\n")

    def test_a_missing_last_line_end_is_added(self) -> None:
        """The end of content begins a line."""
        self.assertEqual(encoded([b"a"]), b"a\r\n.\r\n")

    def test_empty_content(self) -> None:
        """A dot alone."""
        self.assertEqual(encoded([]), b".\r\n")

    @given(octets, places)
    def test_there_and_back(self, content: bytes, at: list[int]) -> None:
        """What the writer sends, the reader makes the same content again."""
        parts, rest, ended = decoded([encoded(cut(content, at))])
        whole = content if not content or content.endswith(b"\r\n") else content + b"\r\n"
        self.assertEqual((b"".join(parts), rest, ended), (whole, b"", True))

    @given(octets, places)
    def test_the_end_comes_once(self, content: bytes, at: list[int]) -> None:
        """Nothing in the content can be taken for its end."""
        stream = b"\r\n" + encoded(cut(content, at))
        self.assertEqual(stream.find(END), len(stream) - len(END))

    @given(octets, places)
    def test_any_cutting_is_sent_the_same(self, content: bytes, at: list[int]) -> None:
        """Pieces are the spool's business, not the peer's."""
        self.assertEqual(encoded(cut(content, at)), encoded([content]))


class LineCheckTests(SynchronousTestCase):
    """Bare CR, bare LF and NUL."""

    def broken(self, pieces: Sequence[bytes]) -> bool:
        """Whether the check finds something."""
        check = LineCheck()
        for piece in pieces:
            check.feed(piece)
        check.end()
        return check.broken

    def test_proper_lines(self) -> None:
        """CRLF alone, content without any line end and empty content pass."""
        for content in (b"a\r\nb\r\n", b"\r\n\r\n", b"a", b""):
            self.assertFalse(self.broken([content]), content)

    def test_improper_lines(self) -> None:
        """Each of them alone is found."""
        for content in (b"a\rb", b"a\nb", b"a\0b", b"\r\r\n", b"\r\n\n", b"\n\r", b"a\r", b"\n"):
            self.assertTrue(self.broken([content]), content)
            self.assertTrue(self.broken(single_octets(content)), content)

    def test_a_pair_does_not_hide_two_halves(self) -> None:
        """As many CRs as LFs is not yet good."""
        self.assertTrue(self.broken([b"\n\r"]))

    @given(octets, places)
    def test_any_cutting_is_judged_the_same(self, content: bytes, at: list[int]) -> None:
        """And the judgement is right."""
        without = content.replace(b"\r\n", b"")
        bad = any(octet in without for octet in b"\r\n\0")
        self.assertEqual(self.broken(cut(content, at)), bad)
