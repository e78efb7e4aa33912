"""The writer of notices (RFC 3461, RFC 3464).

Decides who is told, of what, and whether the message is returned.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence

from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import INotices
from mta.mail import NULL_PATH, Body, Envelope, Recipient, Status
from mta.notices.kinds import is_wanted
from mta.notices.outsiders import Report, one_for_each
from mta.notices.report import POSTMASTER, ReportText
from mta.notices.returned import Returned, returned
from mta.queued import Message, Notice
from mta.smtp import header
from mta.smtp.steps import InSteps, at_once


def _token() -> str:
    return secrets.token_hex(16)


@implementer(INotices)
class NoticeWriter:
    """Writes notices in the name of `hostname`.

    `now` gives seconds since the epoch; `token` a new text of letters and digits that can't be
    guessed.  `in_steps` does long work step by step.
    """

    log = Logger()

    def __init__(
        self,
        hostname: str,
        now: Callable[[], float] = time.time,
        token: Callable[[], str] = _token,
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
        is_outsider = message.envelope.outside and reader is not POSTMASTER
        if is_outsider:
            wanted, expanded = one_for_each(message, wanted)
            if not wanted:
                return None
        part = await self._returned(message, full=_wants_full(message, wanted, reader))
        report = ReportText(
            self._hostname, message, wanted, expires, self._now(), is_outsider, expanded
        )
        made: list[bytes] = []
        await self._in_steps(report.steps(self._token(), part, made))
        return _notice(reader, b"".join(made), require_tls=message.envelope.require_tls)

    def _reader(self, message: Message, reports: Sequence[Report]) -> Recipient | None:
        """The recipient of the notice, None where there is none."""
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

    async def _returned(self, message: Message, *, full: bool) -> Returned | None:
        """The part that returns the message, if that can be read.

        What is sealed can't be.  The sender is told of a message all the more when it is lost.
        """
        if message.envelope.sealed:
            return None
        try:
            return await returned(message, full=full, in_steps=self._in_steps)
        except OSError as error:
            self.log.error(
                "{queue_id} can't be read for a notice: {error}",
                queue_id=message.id,
                error=str(error),
            )
            return None


def _wants_full(message: Message, reports: Sequence[Report], reader: Recipient) -> bool:
    """Tell whether the whole message is to be returned."""
    envelope = message.envelope
    if reports[0][1].status is not Status.FAILED or envelope.require_tls:
        return False  # what must not travel without TLS is not returned: RFC 8689 section 5
    # The reverse-path of an outsider's message may be another's.
    return reader is POSTMASTER or (envelope.ret == "FULL" and not envelope.outside)


def _notice(reader: Recipient, content: bytes, *, require_tls: bool) -> Notice:
    section, body = header.split(content)
    is_ascii = section.isascii() and body.isascii()
    envelope = Envelope(
        NULL_PATH,
        (reader,),
        Body.SEVEN_BIT if is_ascii else Body.EIGHT_BIT,
        reader.forward_path.is_internationalised,
        require_tls=require_tls,
    )
    return Notice(envelope, section, body)
