"""The receive buffer."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.smtp.errors import PeerFault
from mta.smtp.wire import LF, LineTooLong, Wire
from tests.smtp.pieces import cut, octets, places

LIMIT = 8
OVERLONG = None  # stands for LineTooLong among lines


def lines_in(wire: Wire, limit: int) -> list[bytes | None]:
    """All lines that are complete now."""
    lines: list[bytes | None] = []
    while True:
        try:
            line = wire.line(limit)
        except LineTooLong:
            lines.append(OVERLONG)
            continue
        if line is None:
            return lines
        lines.append(line)


def lines_of(pieces: Sequence[bytes], limit: int = LIMIT) -> list[bytes | None]:
    """The lines that come out when those pieces arrive."""
    wire, lines = Wire(), []
    for piece in pieces:
        wire.feed(piece)
        lines += lines_in(wire, limit)
    return lines


class LineTests(SynchronousTestCase):
    """Lines end with CRLF, and only with CRLF (RFC 5321 section 2.3.8)."""

    def test_a_line_comes_without_its_crlf(self) -> None:
        """What follows the line stays unread."""
        wire = Wire()
        wire.feed(b"NOOP\r\nQU")
        self.assertEqual(wire.line(LIMIT), b"NOOP")
        self.assertEqual(len(wire), 2)
        self.assertIsNone(wire.line(LIMIT))
        wire.feed(b"IT\r\n")
        self.assertEqual(wire.line(LIMIT), b"QUIT")
        self.assertEqual(len(wire), 0)

    def test_bare_cr_and_bare_lf_end_no_line(self) -> None:
        """They are octets of the line."""
        self.assertEqual(lines_of([b"a\nb\rc\r\n"]), [b"a\nb\rc"])

    def test_another_line_end(self) -> None:
        """Who reads lines may say what ends them."""
        wire = Wire()
        wire.feed(b"a\r\nb\nc" + b"x" * 4)
        self.assertEqual([wire.line(LIMIT, LF), wire.line(LIMIT, LF)], [b"a\r", b"b"])
        self.assertIsNone(wire.line(LIMIT, LF))
        wire.feed(b"xxx\nd\n")
        self.assertRaises(LineTooLong, wire.line, LIMIT, LF)
        self.assertEqual(wire.line(LIMIT, LF), b"d")

    def test_an_empty_line_is_a_line(self) -> None:
        """It is not the same as no line."""
        self.assertEqual(lines_of([b"\r\n\r\n"]), [b"", b""])

    def test_the_limit_counts_the_crlf(self) -> None:
        """Eight octets fit, nine do not."""
        self.assertEqual(lines_of([b"123456\r\n1234567\r\n"]), [b"123456", OVERLONG])

    def test_the_line_after_an_overlong_one_is_read(self) -> None:
        """An overlong line is one event, and nothing of it is taken for another line."""
        self.assertEqual(lines_of([b"x" * 100, b"x\r", b"\nNOOP\r\n"]), [OVERLONG, b"NOOP"])

    def test_a_line_too_long_is_the_peers_fault(self) -> None:
        """Who reads replies catches it with everything else that breaks the protocol."""
        self.assertTrue(issubclass(LineTooLong, PeerFault))

    def test_an_overlong_line_takes_no_memory(self) -> None:
        """However long it gets, no more of it is kept than one piece."""
        wire = Wire()
        for _ in range(1000):
            wire.feed(b"x" * 1000)
            self.assertIsNone(wire.line(512))
            self.assertLess(len(wire), 512)
        wire.feed(b"\r\n")
        self.assertRaises(LineTooLong, wire.line, 512)

    @given(octets, places)
    def test_any_cutting_gives_the_same_lines(self, stream: bytes, at: list[int]) -> None:
        """TCP keeps no boundaries, so none may mean anything."""
        self.assertEqual(lines_of(cut(stream, at)), lines_of([stream]))

    @given(octets)
    def test_lines_are_what_stands_between_crlfs(self, stream: bytes) -> None:
        """The same as splitting at CRLF, but for overlong lines."""
        expected = [
            line if len(line) + 2 <= LIMIT else OVERLONG for line in stream.split(b"\r\n")[:-1]
        ]
        self.assertEqual(lines_of([stream]), expected)


class TakeTests(SynchronousTestCase):
    """Octets that are no lines: content."""

    def test_take_all(self) -> None:
        """Without a number everything comes, and then nothing."""
        wire = Wire()
        wire.feed(b"abc")
        self.assertEqual(wire.take(), b"abc")
        self.assertEqual(wire.take(), b"")

    def test_take_some(self) -> None:
        """A chunk ends where its size says, and the next line begins there."""
        wire = Wire()
        wire.feed(b"chunkNOOP\r\n")
        self.assertEqual(wire.take(5), b"chunk")
        self.assertEqual(wire.line(LIMIT), b"NOOP")
        self.assertEqual(wire.take(5), b"")

    def test_take_fewer_than_asked(self) -> None:
        """What is not there yet is asked for again later."""
        wire = Wire()
        wire.feed(b"ab")
        self.assertEqual(wire.take(5), b"ab")

    def test_put_back(self) -> None:
        """What was taken too much is read next, before what came later."""
        wire = Wire()
        wire.feed(b"content|NO")
        taken = wire.take()
        wire.feed(b"OP\r\n")
        wire.put_back(taken[8:])
        self.assertEqual(wire.line(LIMIT), b"NOOP")

    def test_drop(self) -> None:
        """Nothing that was unread is ever read, not even the end of an overlong line."""
        wire = Wire()
        wire.feed(b"x" * 20)
        self.assertIsNone(wire.line(LIMIT))
        wire.drop()
        self.assertEqual(len(wire), 0)
        wire.feed(b"NOOP\r\n")
        self.assertEqual(wire.line(LIMIT), b"NOOP")

    @given(octets, places, st.integers(min_value=1, max_value=5))
    def test_nothing_is_lost_or_changed(self, stream: bytes, at: list[int], most: int) -> None:
        """However it arrives and is taken, the same octets come out in the same order."""
        wire, taken = Wire(), b""
        for piece in cut(stream, at):
            wire.feed(piece)
            taken += wire.take(most)
        while piece := wire.take(most):
            taken += piece
        self.assertEqual(taken, stream)
