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
from mta.smtp.trace import one_line


def trace_fields(reverse_path: Mailbox, address: Mailbox) -> bytes:
    """The fields that final delivery to `address` puts on top of content."""
    return b"Return-Path: <%b>\nDelivered-To: %b\n" % (one_line(reverse_path), one_line(address))


async def final_pieces(content: IContent) -> AsyncGenerator[bytes, None]:
    """Read the content in its final form, without the fields of `trace_fields`.

    The header section comes with the first of the body, so that a body that can't be read is
    known before anything is delivered.  Raises OSError.
    """
    lines = _Lines()
    top = header.without(lines.feed(await content.header()), b"return-path")
    async for piece in content.body():
        text, top = top + lines.feed(piece), b""
        if text:
            yield text
    if text := top + lines.finish():
        yield text


class _Lines:
    """Changes CRLF to LF, however content is cut into pieces."""

    __slots__ = ("_carriage_return",)

    def __init__(self) -> None:
        self._carriage_return = b""  # the last octet, which an LF may follow

    def feed(self, piece: bytes) -> bytes:
        """Take a piece; return as much as is certain by now."""
        text = self._carriage_return + piece
        self._carriage_return = b"\r" if text.endswith(b"\r") else b""
        return text.removesuffix(b"\r").replace(b"\r\n", b"\n")

    def finish(self) -> bytes:
        """Return the rest, as no more content comes."""
        return self._carriage_return
