"""One message on its way into the spool: checked, completed, committed.

RFC 5321 sections 4.1.1.4, 4.4 and 6.3; RFC 6409 section 8 for submission.
"""

from __future__ import annotations

from mta.mail import Body, Envelope, Reply
from mta.queued import AlreadyTaken, IDraft, SpoolFull
from mta.session import Origin, Session
from mta.settings import Service
from mta.smtp import header, replies, trace
from mta.smtp.content import LineCheck
from mta.smtp.errors import Refusal
from mta.smtp.header import HeaderSection
from mta.smtp.inspection import Inspected, MessageInspection
from mta.smtp.junk import marked
from mta.smtp.receiver_config import ReceiverConfig
from mta.smtp.wire import CRLF


class IncomingMessage:
    """Takes the content of one message.

    Content that is refused is still taken to its end, and thrown away: only there is the client
    listening for a reply, and what follows must not be read as commands.  `refusal` is the reply
    that awaits it there.
    """

    def __init__(
        self,
        config: ReceiverConfig,
        session: Session,
        origin: Origin,
        envelope: Envelope,
        draft: IDraft,
        inspection: MessageInspection | None = None,
    ) -> None:
        is_hidden = config.hide_client and session.service is Service.SUBMISSION
        self._origin = origin.without_client() if is_hidden else origin
        self._config = config
        self._session = session
        self._envelope = envelope
        self._draft = draft
        self._inspection = inspection
        self._header = HeaderSection()
        self._section = b""  # the header section as it is kept
        self._lines = None if envelope.body is Body.BINARY else LineCheck()
        self._size = 0
        self.refusal: Reply | None = None

    async def write(self, piece: bytes) -> None:
        """Take the next octets of content."""
        if self.refusal is not None:
            return
        self._size += len(piece)
        if self._size > self._config.limits.message_size:
            self._refuse(replies.TOO_BIG)
            return
        if self._lines is not None:
            self._lines.feed(piece)
        if not self._header.complete:
            piece = self._header.feed(piece)
            if not self._header.complete:
                return
            piece = await self._end_header() + piece
        if piece:
            await self._keep(piece)

    async def accept(self) -> Reply:
        """Take responsibility for the message, or refuse it: its content is complete."""
        copies, origin = self._config.second_copies, self._origin
        if copies is None or not origin.is_remembered:
            return await self._accept()
        if not copies.begin(origin):
            self._refuse(replies.UNDER_WAY)
            return replies.UNDER_WAY
        try:
            reply = await self._accept()
        finally:
            copies.end(origin)
        if reply.is_positive:
            return reply
        return await copies.reply(origin, self._envelope.recipients) or reply

    async def _accept(self) -> Reply:
        is_open = self.refusal is None and not self._header.complete
        if is_open and (body := await self._end_header()):
            await self._keep(body)
        if self.refusal is None:
            self._check_content()
        if self.refusal is not None:
            return self.refusal
        try:
            inspected = await self._inspected()
        except Refusal as refusal:
            self._refuse(refusal.reply)
            return refusal.reply
        if inspected.discard:
            inspected.discard_body()
            self._draft.discard()
        else:
            try:
                return await self._take_over(inspected)
            except AlreadyTaken:
                return replies.ALREADY_TAKEN
            except OSError as error:
                inspected.discard_body()
                self._draft.discard()
                return _spool_refusal(error)
        return replies.queued(self._draft.id)

    async def _take_over(self, inspected: Inspected) -> Reply:
        """Have the message put on stable storage, or passed on.

        Raises OSError or AlreadyTaken.
        """
        config, origin = self._config, self._origin
        if inspected.junk:
            origin = marked(inspected, config.junk, origin)
        if inspected.body is not None:
            await self._draft.replace(inspected.body)
        arrived = self._draft, inspected.envelope, inspected.header, origin
        if config.pass_through is not None and not inspected.hold:
            reply = await config.pass_through.pass_on(*arrived, self._session)
            if reply is not None:
                return reply
        message = await config.spool.commit(*arrived, inspected.hold)
        config.accepted_mail.accepted(message, self._session)
        return replies.queued(message.id)

    async def _end_header(self) -> bytes:
        """Check the header section; return what of it is body."""
        try:
            for each in self._config.checks:
                each.check(self._session, self._envelope, self._header.octets)
            body = self._complete_header()
            if self._inspection is not None:
                await self._inspection.header(self._envelope, self._section)
        except Refusal as refusal:
            self._refuse(refusal.reply)
            return b""
        return body

    def _complete_header(self) -> bytes:
        """Complete the header section; return what of it is body.

        Where a user is to be the author, all readers must see the same fields: text without an
        empty line before it gets one.
        """
        octets = self._header.octets
        added = b""
        if self._session.service is Service.SUBMISSION:
            added = self._submission_fields()
        fields = self._header.fields if self._is_author else octets
        rest = octets[len(fields) :]
        if rest in (b"", CRLF):
            self._section = added + octets
            return b""
        self._section = added + fields + CRLF
        return rest

    @property
    def _is_author(self) -> bool:
        """Tell whether a user must be the author (RFC 6409 section 6.1)."""
        return bool(self._session.identity) and self._config.access.checks_authors(self._session)

    def _submission_fields(self) -> bytes:
        """Make the fields that a message must have, and lacks."""
        octets, fields = self._header.fields, []
        if not header.count(octets, b"date"):
            fields.append(f"Date: {trace.date(int(self._config.now()))}\r\n")
        if not header.count(octets, b"message-id"):
            fields.append(f"Message-ID: <{self._draft.id}@{self._config.hostname}>\r\n")
        if not header.count(octets, b"from") and not self._envelope.reverse_path.is_null:
            fields.append(f"From: <{self._envelope.reverse_path}>\r\n")
        return "".join(fields).encode()

    async def _keep(self, octets: bytes) -> None:
        """Pass octets of the body on, to inspectors and draft."""
        if self.refusal is not None:
            return
        try:
            if self._inspection is not None:
                await self._inspection.body(octets)
            await self._draft.write(octets)
        except Refusal as refusal:
            self._refuse(refusal.reply)
        except OSError as error:
            self._refuse(_spool_refusal(error))

    def _check_content(self) -> None:
        """Refuse bare line ends, and mail that goes in circles."""
        if self._lines is not None:
            self._lines.end()
            if self._lines.broken:
                self._refuse(replies.BARE_LINE_END)
                return
        if self._header.count(b"received") > trace.MAX_HOPS:
            self._refuse(replies.MAIL_LOOP)

    async def _inspected(self) -> Inspected:
        """Return what is to be committed.  Raises Refusal."""
        own = trace.received(
            self._origin,
            self._config.hostname,
            self._draft.id,
            self._envelope,
            self._config.now(),
            self._config.node,
        )
        if self._inspection is None:
            return Inspected(own + self._section, self._envelope)
        return await self._inspection.end(own, self._section, self._envelope)

    def _refuse(self, reply: Reply) -> None:
        """Forget the message."""
        self.refusal = reply
        self._draft.discard()
        if self._inspection is not None:
            self._inspection.abort()


def _spool_refusal(error: OSError) -> Reply:
    return replies.SPOOL_FULL if isinstance(error, SpoolFull) else replies.LOCAL_ERROR
