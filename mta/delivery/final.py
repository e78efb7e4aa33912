"""The changes of content in final delivery: trace fields, line ends.

Return-Path: says the reverse-path, and there is only one (RFC 5321 section 4.4); Delivered-To:
says whose copy this is.  Line ends are LF, as programs on this side of SMTP expect them.  All
other octets stay as they came.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from mta.mail import Mailbox
from mta.queued import IContent
from mta.smtp import header
from mta.smtp.header import MAX_HEADER
from mta.smtp.trace import one_line


def trace_fields(reverse_path: Mailbox, address: Mailbox) -> bytes:
    """The fields that final delivery to `address` puts on top of content."""
    return b"Return-Path: <%b>\nDelivered-To: %b\n" % (one_line(reverse_path), one_line(address))


async def final_pieces(content: IContent) -> AsyncGenerator[bytes, None]:
    """The content in its final form, without the fields of `trace_fields`.

    The first piece has the whole header section, as far as that is looked through.
    Raises OSError where the spool can't be read.
    """
    form = FinalForm()
    async for piece in content.pieces():
        if text := form.feed(piece):
            yield text
    if text := form.finish():
        yield text


class FinalForm:
    """Changes CRLF to LF, and drops Return-Path: fields.

    Content may be cut into any pieces.  Keeps at most `MAX_HEADER` octets and one piece.  The
    header section ends where a line is no field; one that is longer than `MAX_HEADER` is only
    looked through that far.
    """

    __slots__ = ("_carriage_return", "_header", "_in_header")

    def __init__(self) -> None:
        self._in_header = True
        self._header = b""
        self._carriage_return = b""  # the last octet, which an LF may follow

    def feed(self, piece: bytes) -> bytes:
        """Take a piece; returns as much as is certain by now."""
        text = self._carriage_return + piece
        self._carriage_return = b"\r" if text.endswith(b"\r") else b""
        text = text.removesuffix(b"\r").replace(b"\r\n", b"\n")
        if not self._in_header:
            return text
        self._header += text
        if b"\n\n" in self._header or len(self._header) > MAX_HEADER:
            return self._end_header()
        return b""

    def finish(self) -> bytes:
        """Return the rest of the final form, as no more content comes."""
        return (self._end_header() if self._in_header else b"") + self._carriage_return

    def _end_header(self) -> bytes:
        text, self._header, self._in_header = self._header, b"", False
        return header.without(text, b"return-path")
