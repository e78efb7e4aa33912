"""The notices that a message needs (RFC 3461, RFC 3464).

Says who is told, and what of the message is returned.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence

from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import INotices
from mta.mail import NULL_PATH, Body, Envelope, Recipient, Status
from mta.notices.outsiders import Report, one_for_each
from mta.notices.report import MAX_LINE, POSTMASTER, Original, ReportText, is_wanted
from mta.queued import Message, Notice
from mta.settings import KIB
from mta.smtp import header, sevenbit
from mta.smtp.fit import ContentInMemory
from mta.smtp.steps import InSteps, at_once

MAX_CONTENT = 256 * KIB  # octets of a message that are returned; of a longer one, its header
MAX_HEADER = 64 * KIB  # octets of a header section that are returned


@implementer(INotices)
class NoticeWriter:
    """Writes notices in the name of `hostname`.

    `now` gives seconds since the epoch; `token` a new text of letters and digits that can't be
    guessed.  `in_steps` does work that takes long, step by step.
    """

    log = Logger()

    def __init__(
        self,
        hostname: str,
        now: Callable[[], float] = time.time,
        token: Callable[[], str] = secrets.token_hex,
        in_steps: InSteps = at_once,
    ) -> None:
        self._hostname = hostname
        self._now = now
        self._token = token
        self._in_steps = in_steps

    async def notice(
        self, message: Message, reports: Sequence[Report], expires: float
    ) -> Notice | None:
        """See `INotices.notice`; all reports are of one kind: failures, delays or successes."""
        wanted = [report for report in reports if is_wanted(message, report)]
        reader = self._reader(message, wanted)
        if reader is None:
            return None
        expanded: Sequence[int] = ()
        envelope = message.envelope
        is_outsider = envelope.outside and reader is not POSTMASTER
        if is_outsider:
            wanted, expanded = one_for_each(message, wanted)
            if not wanted:
                return None
        is_failure = wanted[0][1].status is Status.FAILED
        # What must not travel without TLS does not come back in full (RFC 8689 section 5), nor
        # does what an outsider sent: its reverse-path may be another's.
        wants_full = reader is POSTMASTER or (envelope.ret == "FULL" and not is_outsider)
        full = is_failure and wants_full and not envelope.require_tls
        original = await self._original(message, full)
        report = ReportText(
            self._hostname, message, wanted, expires, self._now(), is_outsider, expanded
        )
        made: list[bytes] = []
        await self._in_steps(report.steps(self._token(), original, made))
        section, body = header.split(b"".join(made))
        is_ascii = section.isascii() and body.isascii()
        return Notice(
            Envelope(
                NULL_PATH,
                (reader,),
                Body.SEVEN_BIT if is_ascii else Body.EIGHT_BIT,
                reader.forward_path.is_internationalised,
                require_tls=envelope.require_tls,
            ),
            section,
            body,
        )

    def _reader(self, message: Message, reports: Sequence[Report]) -> Recipient | None:
        """Return the recipient of the notice, None where there is none."""
        envelope = message.envelope
        if not reports:
            return None
        if not envelope.reverse_path.is_null:
            return Recipient(envelope.reverse_path)
        if reports[0][1].status is not Status.FAILED:
            return None
        if POSTMASTER in envelope.recipients:
            self.log.error(
                "{queue_id} can't be delivered, and nobody is left to tell; see that mail to"
                " the postmaster can be delivered",
                queue_id=message.id,
            )
            return None
        return POSTMASTER

    async def _original(self, message: Message, full: bool) -> Original | None:
        """Return what goes back of the message.  None where the spool can't be read.

        A message that was lost is all the more one that its sender should hear of.
        """
        content = message.content
        full = full and content.size <= MAX_CONTENT
        try:
            octets = await content.header()
            if full:
                octets += b"".join([piece async for piece in content.body()])
        except OSError as error:
            self.log.error(
                "{queue_id} can't be read for a notice: {error}",
                queue_id=message.id,
                error=str(error),
            )
            return None
        utf8 = message.envelope.smtputf8
        if full and await self._is_returnable(octets, utf8):
            return Original("message/global" if utf8 else "message/rfc822", octets)
        lines = _header_lines(octets[:MAX_HEADER], utf8)
        kind = "message/global-headers" if utf8 else "text/rfc822-headers"
        return Original(kind, b"".join(line + b"\r\n" for line in lines))

    async def _is_returnable(self, octets: bytes, utf8: bool) -> bool:
        """Return whether content can be returned as it is.  It can in lines that any server takes.

        With 8-bit octets it must be convertible for a server that does not take them, as a part of
        the notice: a message/global may be encoded as a whole (RFC 6532), a message/rfc822 not.
        """
        bare = octets.replace(b"\r\n", b"")
        if any(octet in bare for octet in (b"\r", b"\n", b"\0")):
            return False
        if any(len(line) > MAX_LINE for line in octets.split(b"\r\n")):
            return False
        if utf8 or octets.isascii():
            return True
        return (
            await sevenbit.converted(ContentInMemory(octets), in_steps=self._in_steps) is not None
        )


def _header_lines(octets: bytes, utf8: bool) -> Iterator[bytes]:
    """The lines of the fields, each of text and of bearable length."""
    for line in octets[: header.end_of_fields(octets)].splitlines():
        shown = line[:MAX_LINE]
        text = shown.decode("utf-8", "ignore") if utf8 else shown.decode("ascii", "replace")
        text = "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
        yield text.encode("utf-8" if utf8 else "ascii", "replace")
