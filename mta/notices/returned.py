"""The part of a notice that returns the message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mta.queued import Message
from mta.settings import KIB
from mta.smtp import header, sevenbit
from mta.smtp.fit import ContentInMemory
from mta.smtp.steps import InSteps

MAX_CONTENT = 256 * KIB  # octets: of a larger message, only the header section is returned
MAX_HEADER = 64 * KIB  # octets: of a header section that are returned, more than is of use
MAX_LINE = 998  # octets: without the line end, RFC 5322 section 2.1.1


@dataclass(frozen=True, slots=True)
class Returned:
    """The returned part: its media type and its octets."""

    media_type: str
    octets: bytes


async def returned(message: Message, *, full: bool, in_steps: InSteps) -> Returned:
    """The message in `full`, if wanted and possible.

    Else its header section.

    Raises OSError.
    """
    content = message.content
    full = full and content.size <= MAX_CONTENT
    octets = await content.header()
    if full:
        octets += b"".join([piece async for piece in content.body()])
    utf8 = message.envelope.smtputf8
    if full and await _is_returnable(octets, utf8=utf8, in_steps=in_steps):
        return Returned("message/global" if utf8 else "message/rfc822", octets)
    lines = _header_lines(octets[:MAX_HEADER], utf8=utf8)
    media_type = "message/global-headers" if utf8 else "text/rfc822-headers"
    return Returned(media_type, b"".join(line + b"\r\n" for line in lines))


async def _is_returnable(octets: bytes, *, utf8: bool, in_steps: InSteps) -> bool:
    """Tell whether content can be returned as it is, to any server.

    It must have proper lines.  With 8-bit octets it must be convertible for a server that does not
    take them, as a part of the notice: a message/global may be encoded as a whole (RFC 6532), a
    message/rfc822 not.
    """
    bare = octets.replace(b"\r\n", b"")
    if any(octet in bare for octet in (b"\r", b"\n", b"\0")):
        return False
    if any(len(line) > MAX_LINE for line in octets.split(b"\r\n")):
        return False
    if utf8 or octets.isascii():
        return True
    return await sevenbit.converted(ContentInMemory(octets), in_steps=in_steps) is not None


def _header_lines(octets: bytes, *, utf8: bool) -> Iterator[bytes]:
    """The lines of the fields, as printable text of limited length."""
    for line in octets[: header.end_of_fields(octets)].splitlines():
        cut = line[:MAX_LINE]
        text = cut.decode("utf-8", "ignore") if utf8 else cut.decode("ascii", "replace")
        text = "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
        yield text.encode("utf-8" if utf8 else "ascii", "replace")
