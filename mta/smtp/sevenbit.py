"""Conversion of content for peers without BINARYMIME or 8BITMIME.

The result has lines only, or 7-bit lines only (RFC 3030, RFC 6152 section 3).  The leaves of the
MIME structure that need it are encoded anew (RFC 2045 section 6); everything else stays.  What is
signed or encrypted as a part is never changed (RFC 8551 section 3.1.3).  Content is read in pieces,
once to plan and once each time that it is sent: none of it is kept in memory.
"""

from __future__ import annotations

import binascii
from base64 import encodebytes
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from zope.interface import implementer

from mta.queued import IContent
from mta.smtp import header
from mta.smtp.mime import Kind, OctetTraits, Part, Scanner, TooComplex
from mta.smtp.steps import InSteps, at_once
from mta.smtp.wire import CRLF

MAX_OCTETS = 64 * 2**20  # octets: of content that is converted, as the time it takes grows with it
STEP = 32 * 1024  # octets: worked on at a time, a few milliseconds at most
IDENTITY = frozenset({b"7bit", b"8bit", b"binary"})
_LINE = 57  # octets in a line of base64


@dataclass(frozen=True, slots=True)
class _Edit:
    """A stretch of content, and the text or encoding that replaces it."""

    start: int
    end: int
    text: bytes = b""
    encoding: bytes = b""


class _Inconvertible(Exception):
    """There is no conversion without loss."""


@implementer(IContent)
class Converted:
    """Content with edits, made while it is read."""

    def __init__(self, content: IContent, edits: Sequence[_Edit], in_steps: InSteps) -> None:
        self.size = 0
        self.is_ascii = True
        self._content = content
        self._edits = edits
        self._in_steps = in_steps

    async def header(self) -> bytes:
        """See `IContent.header`."""
        return await header.section_of(self.pieces())

    def body(self) -> AsyncIterator[bytes]:
        """See `IContent.body`."""
        return header.body_of(self.pieces())

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent.pieces`."""
        editor = _Editor(self._edits)
        async for piece in self._content.pieces():
            made: list[bytes] = []
            await self._in_steps(editor.steps(piece, made))
            yield b"".join(made)
        yield editor.finish()

    async def measure(self) -> bool:
        """Learn the size; returns whether all of it is lines."""
        traits = OctetTraits()
        async for piece in self.pieces():
            self.size += len(piece)
            traits.feed(piece)
        traits.end()
        self.is_ascii = traits.is_ascii
        return traits.is_lines


async def converted(
    content: IContent, *, keeps_8bit: bool = False, in_steps: InSteps = at_once
) -> IContent | None:
    """The content in lines, of 7 bits unless `keeps_8bit`.

    None where that loses something: for header fields with 8-bit octets, for broken MIME, for 8-bit
    content inside of what is signed, for a structure beyond the bounds of `mta.smtp.mime`, and over
    `MAX_OCTETS`.  `in_steps` does long work step by step.  Raises OSError.
    """
    if content.size > MAX_OCTETS:
        return None
    try:
        parts = await _scanned(content, in_steps)
        edits = _all_edits(parts, keeps_8bit=keeps_8bit)
    except (TooComplex, _Inconvertible):
        return None
    edits.sort(key=lambda edit: edit.start)
    result = Converted(content, edits, in_steps)
    is_lines = await result.measure()
    return result if is_lines and (keeps_8bit or result.is_ascii) else None


async def _scanned(content: IContent, in_steps: InSteps) -> Sequence[Part]:
    scanner = Scanner()

    def steps(piece: bytes) -> Iterator[None]:
        for start in range(0, len(piece), STEP):
            scanner.feed(piece[start : start + STEP])
            yield

    async for piece in content.pieces():
        await in_steps(steps(piece))
    return scanner.finish()


# --- what is changed


def _all_edits(parts: Sequence[Part], *, keeps_8bit: bool) -> list[_Edit]:
    """All changes that have to be made.  Raises _Inconvertible.

    A message in which something is encoded must say that it is MIME, or no reader decodes it.
    """
    edits: list[_Edit] = []
    looked_at: set[int] = set()
    for part in parts:
        own = list(_edits(part, keeps_8bit=keeps_8bit))
        edits += own
        around: Part | None = part if own else None
        while around is not None and around.header_start not in looked_at:
            looked_at.add(around.header_start)
            if around.is_message and not header.count(around.fields, b"mime-version"):
                offset = around.header_end
                edits.append(_Edit(offset, offset, b"MIME-Version: 1.0\r\n"))
            around = around.outer
    return edits


def _edits(part: Part, *, keeps_8bit: bool) -> Iterator[_Edit]:
    """The changes to one part.  Raises _Inconvertible."""
    fields, body = OctetTraits(), part.traits
    fields.feed(part.fields)
    fields.end()
    if not fields.is_lines or not (keeps_8bit or fields.is_ascii):
        raise _Inconvertible
    must_be_encoded = not body.is_lines or not (keeps_8bit or body.is_ascii)
    is_leaf = part.kind is Kind.LEAF
    is_encodable = is_leaf and _is_encodable(part)
    if must_be_encoded and not is_encodable:
        raise _Inconvertible
    is_binary = part.encodings == [b"binary"]
    if is_encodable and (must_be_encoded or body.has_long_line or is_binary):
        is_text = part.media_type.startswith("text/") and body.is_lines
        encoding = b"quoted-printable" if is_text else b"base64"
        yield from _labelled(part, encoding)
        yield _Edit(part.body_start, part.body_end, encoding=encoding)
    elif not part.is_signed and (is_binary or part.encodings == [b"8bit"]):
        yield from _labelled(part, b"8bit" if keeps_8bit else b"7bit")


def _is_encodable(part: Part) -> bool:
    """Tell whether a leaf may be encoded, and is described unambiguously."""
    is_composite = part.media_type.startswith(("multipart/", "message/"))
    return (
        not part.is_signed
        and len(part.encodings) <= 1
        and IDENTITY.issuperset(part.encodings)
        and bool(part.media_type)
        and (not is_composite or part.media_type.startswith("message/global"))  # RFC 6532
        and header.end_of_fields(part.fields) == len(part.fields)
    )


def _labelled(part: Part, encoding: bytes) -> Iterator[_Edit]:
    """The changes that give a part its Content-Transfer-Encoding."""
    text = b"Content-Transfer-Encoding: " + encoding + CRLF
    offset = part.header_start
    for each in header.fields(part.fields):
        if header.name(each) == b"content-transfer-encoding":
            yield _Edit(offset, offset + len(each), text)
            return
        offset += len(each)
    yield _Edit(part.header_end, part.header_end, text)


# --- how it is changed


class _Editor:
    """Applies edits to content that comes in pieces."""

    def __init__(self, edits: Sequence[_Edit]) -> None:
        self._edits = list(reversed(edits))
        self._offset = 0
        self._encoder: _Encoder | None = None

    def steps(self, piece: bytes, made: list[bytes]) -> Iterator[None]:
        """Add what becomes of the next piece to `made`."""
        for start in range(0, len(piece), STEP):
            self._feed(piece[start : start + STEP], made)
            yield

    def _feed(self, octets: bytes, made: list[bytes]) -> None:
        end = self._offset + len(octets)
        while self._edits and self._edits[-1].start < end:
            edit = self._edits[-1]
            if self._offset <= edit.start:
                made.append(octets[: edit.start - self._offset])
                made.append(edit.text)
            octets = self._replaced(edit, octets[max(0, edit.start - self._offset) :], end, made)
            if edit.end > end:
                return
            self._edits.pop()
        made.append(octets)
        self._offset = end

    def _replaced(self, edit: _Edit, octets: bytes, end: int, made: list[bytes]) -> bytes:
        """Work on the octets of one edit; returns those behind it."""
        self._offset = min(edit.end, end)
        length = len(octets) - (end - self._offset)
        if edit.encoding:
            self._encoder = self._encoder or _Encoder(edit.encoding)
            made.append(self._encoder.encode(octets[:length]))
            if edit.end <= end:
                made.append(self._encoder.finish())
                self._encoder = None
        return octets[length:]

    def finish(self) -> bytes:
        """Return the last octets, as no more content comes."""
        rest = self._encoder.finish() if self._encoder else b""
        return rest + b"".join(edit.text for edit in reversed(self._edits))


class _Encoder:
    """Encodes a body that comes in pieces, as CRLF lines."""

    def __init__(self, encoding: bytes) -> None:
        self._is_base64 = encoding == b"base64"
        self._rest = b""

    def encode(self, octets: bytes) -> bytes:
        """Return as much of the encoded body as is certain by now."""
        octets = self._rest + octets
        length = len(octets)
        cut = length - length % _LINE if self._is_base64 else octets.rfind(b"\n") + 1
        soft_break = b""
        if not cut and length > STEP:
            cut, soft_break = length - octets.endswith(b"\r"), b"=\r\n"
        self._rest = octets[cut:]
        return self._encoded(octets[:cut]) + soft_break

    def finish(self) -> bytes:
        """The end of the body."""
        return self._encoded(self._rest)

    def _encoded(self, octets: bytes) -> bytes:
        if self._is_base64:
            return encodebytes(octets).replace(b"\n", CRLF)
        return _quoted_printable(octets)


def _quoted_printable(octets: bytes) -> bytes:
    lines = octets.replace(CRLF, b"\n")
    return binascii.b2a_qp(lines, istext=True).replace(b"\n", CRLF)
