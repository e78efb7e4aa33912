"""Content for a peer that takes 7-bit lines only (RFC 6152 section 3, RFC 2045 section 6).

The leaves of the MIME structure that need it are encoded anew; everything else stays.
"""

from __future__ import annotations

import email
import quopri
from base64 import encodebytes
from collections.abc import AsyncIterator
from email.generator import BytesGenerator
from email.message import Message
from email.policy import compat32
from io import BytesIO

from zope.interface import implementer

from mta.interfaces import IContent
from mta.smtp.content import LineCheck

MOST = 64 * 2**20  # octets; the conversion holds the whole message in memory
ENCODED = frozenset({"base64", "quoted-printable"})


@implementer(IContent)
class Converted:
    """Content that was converted, in memory."""

    is_ascii = True

    def __init__(self, octets: bytes) -> None:
        self.size = len(octets)
        self._octets = octets

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent.pieces`."""
        yield self._octets


async def converted(content: IContent) -> IContent | None:
    """The content in 7-bit form; None where there is none without loss.

    That is so for header fields with 8-bit octets, for broken MIME, and over `MOST` octets.
    """
    if content.size > MOST:
        return None
    octets = b"".join([piece async for piece in content.pieces()])
    message = email.message_from_bytes(octets, policy=compat32)
    for part in message.walk():
        if not all(str(value).isascii() for value in part.values()):
            return None
        if part.is_multipart():
            if part.get("Content-Transfer-Encoding") is not None:
                part.replace_header("Content-Transfer-Encoding", "7bit")
        else:
            _encode(part)
    if "MIME-Version" not in message:
        message["MIME-Version"] = "1.0"  # without it nobody undoes the encoding
    out = BytesIO()
    generator = BytesGenerator(
        out, mangle_from_=False, maxheaderlen=0, policy=compat32.clone(linesep="\r\n")
    )
    generator.flatten(message)
    result = out.getvalue()
    return Converted(result) if result.isascii() else None


def _encode(part: Message) -> None:
    """Give one leaf an encoding of 7-bit lines, where it has none."""
    encoding = str(part.get("Content-Transfer-Encoding", "7bit")).strip().lower()
    payload = part.get_payload(decode=True)
    if encoding in ENCODED or not isinstance(payload, bytes):
        return
    lines = LineCheck()
    lines.feed(payload)
    lines.end()
    if encoding == "7bit" and payload.isascii() and not lines.broken:
        return
    del part["Content-Transfer-Encoding"]
    if part.get_content_maintype() == "text" and not lines.broken:
        text = quopri.encodestring(payload.replace(b"\r\n", b"\n"))
        part["Content-Transfer-Encoding"] = "quoted-printable"
    else:
        text = encodebytes(payload)
        part["Content-Transfer-Encoding"] = "base64"
    part.set_payload(text.decode("ascii").replace("\r\n", "\n"))
