"""The MIME structure of content (RFC 2046 section 5.1).

Content is scanned in pieces and once, whatever it holds: the number of parts, their depth and their
header sections are bounded, and nothing of a body is kept.  Only CRLF ends a line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from mta.smtp import header
from mta.smtp.content import LineCheck
from mta.smtp.wire import CRLF

MAX_PARTS = 1000  # parts: of one message, more than honest mail has
MAX_DEPTH = 100  # parts: nested in one another, likewise
MAX_FIELDS = 2**20  # octets: of all header sections together, as they are kept
MAX_DASHED_LINES = 500_000  # lines: that begin as a delimiter does, as each is compared
MAX_DELIMITER = 256  # octets: of a delimiter line; RFC 2046 allows 70 for a boundary
MAX_LINE = 998  # octets: of a line without its end, RFC 5322 section 2.1.1
MAX_FIELD = 8192  # octets: of a Content-Type field, as a pattern is matched with it

_LONG_LINE = re.compile(rb"\n[^\n]{%d}" % (MAX_LINE + 2))
_WORD = r"\s*([!#-'*+.0-9A-Z^-~-]+)\s*"
_MEDIA_TYPE = re.compile(f"{_WORD}/{_WORD}(?:[;(]|\\Z)", re.I)
# Without quoted pairs, which not all readers undo.
_BOUNDARY = re.compile(r';\s*boundary\s*=\s*(?:"([^"\\]*+)"|([^\s;"()\\]++))', re.I)


class TooComplex(Exception):
    """The structure is over a bound."""


class Kind(Enum):
    """The make of a part."""

    LEAF = "leaf"
    MULTIPART = "multipart"
    MESSAGE = "message"


class OctetTraits:
    """The traits of a stretch of content that matter for sending."""

    __slots__ = ("_line", "_lines", "has_long_line", "is_ascii")

    def __init__(self) -> None:
        self.is_ascii = True
        self.has_long_line = False
        self._lines = LineCheck()
        self._line = 0  # octets of the last line so far

    @property
    def is_lines(self) -> bool:
        """Tell whether it has neither bare CR or LF nor NUL."""
        return not self._lines.broken

    def feed(self, octets: bytes) -> None:
        """Look at the next octets."""
        self.is_ascii = self.is_ascii and octets.isascii()
        self._lines.feed(octets)
        end = octets.find(b"\n")
        first = self._line + (len(octets) if end < 0 else end)
        self._line = first if end < 0 else len(octets) - octets.rfind(b"\n") - 1
        if first > MAX_LINE + 1 or self._line > MAX_LINE + 1 or _LONG_LINE.search(octets):
            self.has_long_line = True

    def end(self) -> None:
        """End the stretch: a CR at its very end stayed bare."""
        self._lines.end()


@dataclass(slots=True)
class Part:
    """A message or body part.  Offsets are octets from the start of content.

    `fields` is its header section, which ends at `header_end`; `encodings` are its values of
    Content-Transfer-Encoding in lower case, of which there should be one at most.  `traits` are
    those of the body of a leaf, or of what stands between the parts of a multipart.  `is_signed`:
    it must stay as it is, being inside a multipart/signed or multipart/encrypted (RFC 1847).
    """

    fields: bytes
    header_start: int
    body_start: int
    media_type: str = "text/plain"
    kind: Kind = Kind.LEAF
    boundary: bytes = b""
    encodings: Sequence[bytes] = ()
    is_signed: bool = False
    outer: Part | None = None
    body_end: int = 0
    traits: OctetTraits = field(default_factory=OctetTraits)

    @property
    def is_message(self) -> bool:
        """Tell whether it is a message, and not a part of one."""
        return self.outer is None or self.outer.kind is Kind.MESSAGE

    @property
    def header_end(self) -> int:
        """The offset behind the header section."""
        return self.header_start + len(self.fields)


@dataclass(frozen=True, slots=True)
class _Delimiter:
    """A delimiter line of the multipart at `level`.

    It reaches from the CRLF before it to the one behind it.
    """

    start: int
    end: int
    level: int
    closes: bool


class Scanner:
    """Finds the parts of content that comes in pieces.  `parts` has them in order."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._open: list[Part] = []  # from the message to the innermost part
        self._boundaries: dict[bytes, tuple[int, bool]] = {}  # to level, and whether it closes
        self._buffer = CRLF  # begins at a line end; this one is virtual
        self._base = -len(CRLF)  # the offset of the buffer in the content
        self._fields = 0  # octets of header sections
        self._dashed_lines = 0
        self._in_header = True
        self._is_fresh = False  # whether the buffer begins with the empty line before a body

    def feed(self, piece: bytes) -> None:
        """Take the next octets of content.  Raises TooComplex."""
        self._buffer += piece
        while self._header() if self._in_header else self._body():
            pass

    def finish(self) -> list[Part]:
        """End the content; returns its parts.  Raises TooComplex."""
        self.feed(CRLF)  # the last line need not have an end
        if self._in_header:
            rest = self._buffer[len(CRLF) :]
            self._begin(rest[: -len(CRLF)] if rest else b"", is_whole=False)
        elif len(self._buffer) > len(CRLF) or not self._is_fresh:
            self._take(len(self._buffer) - len(CRLF))
        self._close(0, self._base + max(0, len(self._buffer) - len(CRLF)))
        return self.parts

    # --- one step each; True: there may be another

    def _header(self) -> bool:
        """Begin a part, where its header section is there."""
        end = self._buffer.find(CRLF + CRLF)
        delimiter = self._delimiter(end if end >= 0 else len(self._buffer))
        if delimiter is not None:
            self._begin(self._buffer[len(CRLF) : delimiter.start + len(CRLF)], is_whole=False)
            self._divide(delimiter)
            return True
        if end < 0:
            if len(self._buffer) > header.MAX_HEADER:
                raise TooComplex
            return False
        self._begin(self._buffer[len(CRLF) : end + len(CRLF)], is_whole=True)
        self._skip(end + len(CRLF))
        return True

    def _body(self) -> bool:
        """Take what certainly is of a body, and the delimiter behind it."""
        delimiter = self._delimiter(len(self._buffer))
        if delimiter is not None:
            self._take(delimiter.start)
            self._divide(delimiter)
            return True
        last = self._buffer.rfind(CRLF)
        if last < 0 or len(self._buffer) - last > MAX_DELIMITER:  # no delimiter begins there
            last = len(self._buffer) - self._buffer.endswith(b"\r")
        if last:
            self._take(last)
            self._skip(last)
        return False

    def _delimiter(self, limit: int) -> _Delimiter | None:
        """The first whole delimiter line that begins before `limit`."""
        buffer, start = self._buffer, -1
        while (start := buffer.find(b"\r\n--", start + 1, limit + 4)) >= 0:
            self._dashed_lines += 1
            if self._dashed_lines > MAX_DASHED_LINES:
                raise TooComplex
            end = buffer.find(CRLF, start + 4, start + MAX_DELIMITER)
            if end >= 0:
                found = self._boundaries.get(buffer[start + 4 : end].rstrip(b" \t"))
                if found is not None:
                    return _Delimiter(start, end, *found)
        return None

    # --- parts

    def _begin(self, fields: bytes, *, is_whole: bool) -> None:
        """Open the part whose header section begins the buffer."""
        self._fields += len(fields)
        if (
            len(self.parts) >= MAX_PARTS
            or len(self._open) >= MAX_DEPTH
            or self._fields > MAX_FIELDS
        ):
            raise TooComplex
        outer = self._open[-1] if self._open else None
        start = self._base + len(CRLF)
        part = Part(fields, start, start + len(fields) + len(CRLF) * is_whole, outer=outer)
        _describe(part, outer)
        self.parts.append(part)
        self._open.append(part)
        if part.kind is Kind.MULTIPART:
            level = len(self._open) - 1
            for line, closes in ((part.boundary, False), (part.boundary + b"--", True)):
                if line in self._boundaries:
                    raise TooComplex
                self._boundaries[line] = level, closes
        self._in_header = part.kind is Kind.MESSAGE
        self._is_fresh = True

    def _divide(self, delimiter: _Delimiter) -> None:
        """End the parts inside a multipart, at one of its delimiters."""
        self._close(delimiter.level + 1, self._base + delimiter.start)
        multipart = self._open[delimiter.level]
        multipart.traits.feed(self._buffer[delimiter.start : delimiter.end])
        if delimiter.closes:
            self._forget(multipart)
        self._skip(delimiter.end)
        self._in_header = not delimiter.closes
        self._is_fresh = False

    def _close(self, level: int, offset: int) -> None:
        """End the open parts from a level on, at an offset."""
        for part in self._open[level:]:
            part.body_end = max(offset, part.body_start)
            part.traits.end()
            self._forget(part)
        del self._open[level:]

    def _forget(self, part: Part) -> None:
        if part.kind is Kind.MULTIPART:
            self._boundaries.pop(part.boundary, None)
            self._boundaries.pop(part.boundary + b"--", None)

    def _take(self, end: int) -> None:
        """Note the traits of a body, up to an offset."""
        start = len(CRLF) if self._is_fresh else 0
        self._is_fresh = self._is_fresh and end == 0
        self._open[-1].traits.feed(self._buffer[start:end])

    def _skip(self, end: int) -> None:
        self._buffer = self._buffer[end:]
        self._base += end


def _describe(part: Part, outer: Part | None) -> None:
    """Fill in the fields that a part's header section decides."""
    if outer is not None:
        in_signed = outer.media_type in ("multipart/signed", "multipart/encrypted")
        part.is_signed = outer.is_signed or in_signed
        if outer.media_type == "multipart/digest":
            part.media_type = "message/rfc822"
    encodings = header.values(part.fields, b"content-transfer-encoding")
    part.encodings = [encoding.lower() for encoding in encodings]
    values = header.values(part.fields, b"content-type")
    if len(values) > 1 or (values and len(values[0]) > MAX_FIELD):
        part.media_type = ""
        return
    value = _uncommented(values[0].decode("latin-1")) if values else ""
    if found := _MEDIA_TYPE.match(value):
        part.media_type = f"{found[1]}/{found[2]}".lower()
    elif value:
        part.media_type = "text/plain"  # RFC 2045 section 5.2
    if any(encoding not in (b"7bit", b"8bit", b"binary") for encoding in part.encodings):
        return  # what is encoded has no parts that a reader could see
    if part.media_type.startswith("multipart/"):
        if boundary := _boundary(value):
            part.kind, part.boundary = Kind.MULTIPART, boundary
    elif part.media_type == "message/rfc822":
        part.kind = Kind.MESSAGE


def _uncommented(value: str) -> str:
    """The value without comments, unless one does not end."""
    if "(" not in value:
        return value
    try:
        return header.without_comments(value)
    except ValueError:
        return value


def _boundary(value: str) -> bytes:
    found = _BOUNDARY.search(value)
    if found is None:
        return b""
    return (found[1] or found[2] or "").rstrip(" \t").encode("latin-1")
