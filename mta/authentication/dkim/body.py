"""Hashes of a body that comes in pieces.

RFC 6376 sections 3.4 and 3.7.  Pieces may be cut anywhere.  What is kept between
them is a few octets, and a number of empty lines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

_MANY_EMPTY_LINES = b"\r\n" * 2048  # a body may have millions


class BodyForm(NamedTuple):
    """The form in which a signature hashes the body.

    `relaxed` is one of the two canonicalisations; `limit` is ``l=`` in octets, None for all.
    """

    relaxed: bool
    limit: int | None = None


class BodyHasher:
    """Hashes a body in some forms, each canonicalisation done once."""

    def __init__(self, forms: Collection[BodyForm]) -> None:
        self._hashes = {form: _Hash(form.limit) for form in forms}
        self._streams: list[tuple[_SimpleBody, list[_Hash]]] = []
        for relaxed in (False, True):
            if wanted := [self._hashes[form] for form in self._hashes if form.relaxed == relaxed]:
                self._streams.append((_RelaxedBody() if relaxed else _SimpleBody(), wanted))

    def feed(self, piece: bytes) -> None:
        """Hash the next octets of the body."""
        for canonical, hashes in self._streams:
            for octets in canonical.feed(piece):
                for each in hashes:
                    each.update(octets)

    def end(self) -> None:
        """End the body, once."""
        for canonical, hashes in self._streams:
            for octets in canonical.end():
                for each in hashes:
                    each.update(octets)

    def digest(self, form: BodyForm) -> bytes:
        """The hash of one form."""
        return self._hashes[form].digest()

    def length(self, form: BodyForm) -> int:
        """The octets of the whole canonical body, those beyond the limit too."""
        return self._hashes[form].length


class _Hash:
    """SHA-256 of the first octets of a canonical body."""

    __slots__ = ("_hash", "_limit", "digest", "length")

    def __init__(self, limit: int | None) -> None:
        self._hash = hashlib.sha256()
        self._limit = limit
        self.digest = self._hash.digest
        self.length = 0

    def update(self, octets: bytes) -> None:
        if self._limit is None:
            self._hash.update(octets)
        elif self.length < self._limit:
            self._hash.update(octets[: self._limit - self.length])
        self.length += len(octets)


class _SimpleBody:
    """The simple canonicalisation (section 3.4.3): no empty lines at the end."""

    __slots__ = ("_carriage_return", "_empty_lines", "_is_empty")

    def __init__(self) -> None:
        self._empty_lines = 0  # line ends, of which nothing is known to follow
        self._carriage_return = b""  # at the end of the last piece
        self._is_empty = True

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The canonical octets that are certain now."""
        if self._carriage_return:
            piece = self._carriage_return + piece
        end = _end_of_text(piece)
        rest = len(piece) - end
        self._carriage_return = b"\r" if rest % 2 else b""
        if end:
            yield from self._lines_before()
            self._is_empty = False
            yield piece[:end] if rest else piece
        self._empty_lines += rest // 2

    def end(self) -> Iterator[bytes]:
        """The last octets: a body ends in one line end."""
        if self._carriage_return:
            yield from self._lines_before()
            yield self._carriage_return
        yield b"\r\n"

    def _lines_before(self) -> Iterator[bytes]:
        """The line ends that turned out not to be at the end."""
        left, self._empty_lines = self._empty_lines, 0
        while left:
            most = min(left, len(_MANY_EMPTY_LINES) // 2)
            yield _MANY_EMPTY_LINES[: 2 * most]
            left -= most


class _RelaxedBody(_SimpleBody):
    """The relaxed canonicalisation (section 3.4.4).

    Blanks count as one space, and not at all at the ends of lines.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        super().__init__()
        self._held = b""  # a blank, a CR, or both, at the end of the last piece

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The canonical octets that are certain now."""
        if self._held:
            piece = self._held + piece
            self._held = b""
        if piece.endswith((b"\r", b" ", b"\t")):
            text = piece.removesuffix(b"\r")
            kept = text.rstrip(b" \t")
            blank = b" " if len(kept) < len(text) else b""
            self._held = blank + piece[len(text) :]
            piece = kept
        return super().feed(_relaxed(piece))

    def end(self) -> Iterator[bytes]:
        """The last octets, none where nothing but blanks came."""
        if self._held.endswith(b"\r"):  # a bare one
            yield from super().feed(self._held)
        if not self._is_empty or self._carriage_return:
            yield from super().end()


def single_spaces(text: bytes) -> bytes:
    """The text with one space for each run of blanks."""
    if b"\t" in text:
        text = text.replace(b"\t", b" ")
    while b"  " in text:  # each round halves the longest run
        text = text.replace(b"  ", b" ")
    return text


def _relaxed(text: bytes) -> bytes:
    """The text with single spaces, and none before line ends."""
    if b" " not in text and b"\t" not in text:
        return text
    text = single_spaces(text)
    return text.replace(b" \r\n", b"\r\n") if b" \r\n" in text else text


def _end_of_text(piece: bytes) -> int:
    """The place behind which there are only line ends.

    The last one may be there in half.
    """
    if piece[-1:] not in (b"\r", b"\n"):
        return len(piece)
    start = len(piece.rstrip(b"\r\n"))
    tail = piece[start:]
    if len(tail) == 2 and tail == b"\r\n":
        return start
    # Behind the last two that are alike, CR and LF take turns.
    start += max(tail.rfind(b"\r\r"), tail.rfind(b"\n\n")) + 1
    return start + 1 if piece[start : start + 1] == b"\n" else start
