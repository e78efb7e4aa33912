"""Messages to the postmaster, in the queue as any other mail."""

from __future__ import annotations

import secrets
import textwrap
import time
from collections.abc import Callable
from email.utils import formatdate

from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IOwnMail, IPostmaster, ISpool
from mta.mail import NULL_PATH, Body, Envelope
from mta.notices.report import POSTMASTER, WIDTH
from mta.session import NOTICE_ORIGIN


@implementer(IPostmaster)
class Postmaster:
    """Writes to the postmaster in the name of `hostname`.

    `now` gives seconds since the epoch.
    """

    log = Logger()

    def __init__(
        self,
        hostname: str,
        spool: ISpool,
        mail: IOwnMail,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._hostname = hostname
        self._spool = spool
        self._mail = mail
        self._now = now

    async def tell(self, subject: str, text: str) -> None:
        """See `IPostmaster.tell`."""
        paragraphs = [textwrap.fill(each, WIDTH) for each in text.split("\n\n")]
        body = ("\n\n".join(paragraphs) + "\n").replace("\n", "\r\n").encode()
        kind = Body.SEVEN_BIT if body.isascii() and subject.isascii() else Body.EIGHT_BIT
        envelope = Envelope(NULL_PATH, (POSTMASTER,), kind, not subject.isascii())
        draft = self._spool.draft()
        try:
            draft.address(envelope)
            await draft.write(body)
            header = self._header(subject)
            message = await self._spool.commit(draft, envelope, header, NOTICE_ORIGIN)
        except OSError as error:
            draft.discard()
            self.log.error(
                "the postmaster can't be told that {subject}: {error}",
                subject=subject,
                error=str(error),
            )
            return
        self._mail.written(message, f"for the postmaster, {subject}")

    def _header(self, subject: str) -> bytes:
        host = self._hostname
        return (
            f"From: Mail server <MAILER-DAEMON@{host}>\r\n"
            f"To: postmaster@{host}\r\n"
            f"Subject: {host}: {subject}\r\n"
            f"Date: {formatdate(self._now(), localtime=True)}\r\n"
            f"Message-ID: <{secrets.token_hex(16)}@{host}>\r\n"
            "Auto-Submitted: auto-generated\r\n"
            "MIME-Version: 1.0\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            "Content-Transfer-Encoding: 8bit\r\n"
            "\r\n"
        ).encode()
