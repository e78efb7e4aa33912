"""One message on its way from the wire into the spool: what is checked, and what is added.

RFC 5321 sections 4.1.1.4, 4.4 and 6.3; RFC 6409 section 8 for submission.
"""

from __future__ import annotations

import re

from mta.mail import Body, Envelope, Reply
from mta.queued import IDraft, SpoolFull
from mta.session import Session
from mta.settings import Service
from mta.smtp import header, replies, trace
from mta.smtp.authors import authors
from mta.smtp.content import LineCheck
from mta.smtp.errors import Refusal
from mta.smtp.header import HeaderSection
from mta.smtp.receiver_config import ReceiverConfig
from mta.smtp.wire import CRLF

# A line that looks like a From: field to somebody, where we see no fields any more.
_LIKE_AN_AUTHOR = re.compile(rb"^[^a-z\n]*+from[^a-z\n:]*+:", re.MULTILINE | re.IGNORECASE)


class Intake:
    """Takes the content of one message.

    Content that is refused is still taken to its end, and thrown away: only there is the
    client listening for a reply, and what follows must not be read as commands.  `refusal`
    is the reply that awaits it there.
    """

    def __init__(
        self,
        config: ReceiverConfig,
        session: Session,
        envelope: Envelope,
        draft: IDraft,
    ) -> None:
        origin = session.origin(smtputf8=envelope.smtputf8)
        if session.service is Service.SUBMISSION and config.hide_client:
            origin = origin.without_client()
        self._origin = origin
        self._config = config
        self._session = session
        self._envelope = envelope
        self._draft = draft
        self._header = HeaderSection()
        self._lines = None if envelope.body is Body.BINARY else LineCheck()
        self._size = 0
        self.refusal: Reply | None = None

    async def write(self, piece: bytes) -> None:
        """Take the next octets of content."""
        if self.refusal is not None:
            return
        self._size += len(piece)
        if self._size > self._config.limits.message_size:
            self.refuse(replies.TOO_BIG)
            return
        if self._lines is not None:
            self._lines.feed(piece)
        if not self._header.complete:
            piece = self._header.feed(piece)
            if not self._header.complete:
                return
            piece = self._checked_header() + piece
        if piece:
            await self._keep(piece)

    async def accept(self) -> Reply:
        """The content is complete: take responsibility for it, or refuse it."""
        if self.refusal is not None:
            return self.refusal
        if not self._header.complete:
            await self._keep(self._checked_header())
        if self._lines is not None:
            self._lines.end()
            if self._lines.broken:
                self.refuse(replies.BARE_LINE_END)
        if self._header.count(b"received") > trace.MAX_HOPS:
            self.refuse(replies.MAIL_LOOP)
        if self.refusal is not None:
            return self.refusal
        try:
            message = await self._config.spool.commit(
                self._draft, self._envelope, self._top() + self._section, self._origin
            )
        except OSError as error:
            return _spool_refusal(error)
        self._config.accepted_mail.accepted(message, self._session)
        return Reply(250, "2.0.0", (f"OK queued as {message.id}",))

    def refuse(self, reply: Reply) -> None:
        """Forget the message; the first refusal is the one that counts."""
        if self.refusal is None:
            self.refusal = reply
            self._draft.discard()

    @property
    def _is_users(self) -> bool:
        """Whether a user submits it, who writes as nobody else (RFC 6409 section 6.1)."""
        return bool(self._session.identity) and self._config.access.checks_authors(self._session)

    def _check_header(self) -> None:
        """The header section is complete: look at who wrote it, and where it was before."""
        try:
            if self._is_users:
                self._check_authors()
            self._config.access.header_section(self._envelope, self._header.octets)
        except Refusal as refusal:
            self.refuse(refusal.reply)

    def _check_authors(self) -> None:
        """From: must name addresses of the user.  Raises Refusal."""
        if self._header.cut:
            raise Refusal(replies.HEADER_TOO_LONG)
        octets = self._header.octets
        lines = LineCheck()  # a line of the header section that we don't see hides a field
        lines.feed(octets)
        if lines.broken:
            raise Refusal(replies.BARE_LINE_END)
        fields = self._header.fields
        if _LIKE_AN_AUTHOR.search(octets, len(fields)):  # some readers look for more fields there
            raise Refusal(replies.AUTHOR_UNCLEAR)
        values = header.values(fields, b"from")
        if not values:
            return
        try:
            if len(values) > 1:
                raise ValueError("more than one")
            mailboxes = authors(values[0])
        except ValueError:
            raise Refusal(replies.AUTHOR_UNCLEAR) from None
        for mailbox in mailboxes:
            self._config.access.header_from(self._session, mailbox)

    async def _keep(self, octets: bytes) -> None:
        if self.refusal is not None:
            return
        try:
            await self._draft.write(octets)
        except OSError as error:
            self.refuse(_spool_refusal(error))

    def _checked_header(self) -> bytes:
        """Check the header section, and return what of it is body.

        Where a user says who wrote it, all readers must see the same fields: text without an empty
        line before it gets one.
        """
        self._check_header()
        self._section = octets = self._header.octets
        fields = self._header.fields if self._is_users else octets
        rest = octets[len(fields) :]
        if rest in (b"", CRLF):
            return b""
        self._section = fields + CRLF
        return rest

    def _top(self) -> bytes:
        """What we put on top of the message."""
        now = self._config.now()
        top = trace.received(
            self._origin, self._config.hostname, self._draft.id, self._envelope, now
        )
        if self._session.service is Service.SUBMISSION:
            top += self._submission_fields(now)
        return top

    def _submission_fields(self, now: float) -> bytes:
        """The fields that a message must have and a mail program left out."""
        octets, fields = self._header.fields, []
        if not header.count(octets, b"date"):
            fields.append(f"Date: {trace.date(int(now))}\r\n")
        if not header.count(octets, b"message-id"):
            fields.append(f"Message-ID: <{self._draft.id}@{self._config.hostname}>\r\n")
        if not header.count(octets, b"from") and not self._envelope.reverse_path.is_null:
            fields.append(f"From: <{self._envelope.reverse_path}>\r\n")
        return "".join(fields).encode()


def _spool_refusal(error: OSError) -> Reply:
    return replies.SPOOL_FULL if isinstance(error, SpoolFull) else replies.LOCAL_ERROR
