"""The one reader of header sections (RFC 5322 section 2.2).

A field may be folded, may have white space before its colon (the obsolete form of section 4.5),
and may be written in any case.  Lines end in CRLF, or in LF as they do in final delivery.
All functions take octets that begin with a header section; each looks at all of them.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import lru_cache

MAX_HEADER = 256 * 1024  # octets: far more than honest mail has, and quickly looked through

_NAME = rb"[!-9;-~]++"
# Possessive: a section of many thousand fields must not cost a stack of its own.  What is repeated
# never fails in its middle: Python before 3.11.5 would go on from there.
_VALUE = rb"[^\n]*+(?:\n|\Z)(?:[ \t][^\n]*+(?:\n|\Z))*+"
_FIELD = re.compile(_NAME + rb"[ \t]*+:" + _VALUE)
_BEGINNING = re.compile(_NAME + rb"[ \t]*+:")
_LAST_LINE = re.compile(rb"\n(?![ \t]|" + _NAME + rb"[ \t]*+:)")
_FOLD = re.compile(rb"\r?\n")
_CHARACTER = re.compile(r"\\.|.", re.DOTALL)  # or a quoted pair


def end_of_fields(octets: bytes) -> int:
    """Return the place of the first line that is no field.  It is the end where all lines are."""
    if not begins_field(octets):
        return 0
    last = _LAST_LINE.search(octets)
    return last.end() if last else len(octets)


def begins_field(line: bytes) -> bool:
    """Return whether a line begins a field."""
    return _BEGINNING.match(line) is not None


def fields(octets: bytes) -> list[bytes]:
    """Return the fields, with names and line ends.  They end at the first line that is none."""
    return _FIELD.findall(octets, 0, end_of_fields(octets))


def name(field: bytes) -> bytes:
    """The name of a field in lower case."""
    return field.partition(b":")[0].rstrip(b" \t").lower()


def value(field: bytes) -> bytes:
    """The value of a field, unfolded, without white space around it."""
    return _FOLD.sub(b"", field.partition(b":")[2]).strip(b" \t\r\n")


def without_comments(text: str) -> str:
    """Return an unfolded value with a line end for each comment.  See RFC 5322 section 3.2.2.

    Raises ValueError where a comment or a quoted string does not end.
    """
    if "(" not in text and '"' not in text:
        return text
    kept: list[str] = []
    quoted, depth = False, 0
    for character in _CHARACTER.findall(text):
        if depth:
            depth += (character == "(") - (character == ")")
        elif character == "(" and not quoted:
            kept.append("\n")
            depth = 1
        else:
            kept.append(character)
            quoted = quoted != (character == '"')
    if quoted or depth:
        raise ValueError("a quoted string or a comment does not end")
    return "".join(kept)


def values(octets: bytes, wanted: bytes) -> list[bytes]:
    """The values of all fields of one name, given in lower case."""
    return [value(field) for field in _found(octets, wanted)]


def count(octets: bytes, wanted: bytes) -> int:
    """The number of fields of one name, given in lower case."""
    return len(_found(octets, wanted))


def _found(octets: bytes, wanted: bytes) -> list[bytes]:
    """The fields of one name."""
    # A pattern alone would be tried at each octet.  With a line end in front, a line begins in
    # `octets` at the place of the line end before it in `lines`.
    lines, pattern = b"\n" + octets.lower(), _named(wanted)
    found = []
    place = lines.find(b"\n" + wanted)
    while place >= 0:
        field = pattern.match(octets, place)
        if field:
            found.append(field[0])
        place = lines.find(b"\n" + wanted, field.end() if field else place + 1)
    return found


def without(octets: bytes, unwanted: bytes) -> bytes:
    """Return the octets without the fields of one name.

    It is given in lower case.  What follows `end_of_fields` stays.
    """
    if not _found(octets, unwanted):
        return octets
    end = end_of_fields(octets)
    return _named(unwanted).sub(b"", octets[:end]) + octets[end:]


@lru_cache(maxsize=32)  # names that we look for, never names out of mail
def _named(wanted: bytes) -> re.Pattern[bytes]:
    """Return a pattern for fields of one name."""
    pattern = rb"^" + re.escape(wanted) + rb"[ \t]*+:" + _VALUE
    return re.compile(pattern, re.MULTILINE | re.IGNORECASE)


def split(content: bytes) -> tuple[bytes, bytes]:
    """Split content into its header section and its body.  The empty line belongs to the former."""
    section = HeaderSection()
    body = section.feed(content)
    return section.octets, body


async def section_of(pieces: AsyncIterator[bytes]) -> bytes:
    """Read the header section of content that comes in pieces.  Raises OSError."""
    section = HeaderSection()
    async for piece in pieces:
        section.feed(piece)
        if section.complete:
            break
    return section.octets


async def body_of(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Read the body of content that comes in pieces.  Raises OSError."""
    section = HeaderSection()
    async for piece in pieces:
        if body := section.feed(piece):
            yield body


def is_cut(section: bytes) -> bool:
    """Tell whether a header section goes on beyond the bound."""
    return len(section) >= MAX_HEADER and not section.endswith(b"\r\n\r\n")


class HeaderSection:
    """Gathers the header section at the start of content, within a bound.

    `octets` is what was gathered, with the empty line that ends it.  Of content that has none in
    `MAX_HEADER` octets, so much is taken as header section, and `cut` says so.
    """

    __slots__ = ("_fields", "_gathered", "_octets", "complete", "cut")

    def __init__(self) -> None:
        self._gathered = bytearray()
        self._octets: bytes | None = None
        self._fields: bytes | None = None
        self.complete = False
        self.cut = False

    @property
    def octets(self) -> bytes:
        """The header section, as far as it was gathered."""
        if not self.complete:
            return bytes(self._gathered)
        if self._octets is None:
            self._octets = bytes(self._gathered)
        return self._octets

    def feed(self, piece: bytes) -> bytes:
        """Take the next octets of content; return what of them is body."""
        if self.complete:
            return piece
        gathered = self._gathered
        unseen = max(0, len(gathered) - 3)  # the end may be cut, too
        gathered += piece
        if gathered.startswith(b"\r\n"):
            end = 2
        else:
            end = gathered.find(b"\r\n\r\n", unseen, MAX_HEADER + 1)
            end = end + 4 if end >= 0 else -1
        if end < 0 and len(gathered) <= MAX_HEADER:
            return b""
        self.complete = True
        self.cut = end < 0
        cut = MAX_HEADER if self.cut else end
        rest = bytes(gathered[cut:])
        del gathered[cut:]
        return rest

    @property
    def fields(self) -> bytes:
        """The fields that were gathered.  They end at the first line that is none."""
        if self._fields is None or not self.complete:
            octets = self.octets
            self._fields = octets[: end_of_fields(octets)]
        return self._fields

    def count(self, wanted: bytes) -> int:
        """The number of fields of one name, given in lower case."""
        return count(self.octets, wanted)
