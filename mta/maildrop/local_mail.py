"""Inspectors of mail from programs of this host.

They see a session of SMTP from 127.0.0.1 with one message.  There is no client that could hear a
refusal: what is refused for good is taken, and kept for the operator.
"""

from __future__ import annotations

from collections.abc import Sequence

from mta.interfaces import IInspector
from mta.mail import Envelope, MailArgument
from mta.session import Origin, Session
from mta.settings import Service
from mta.smtp.errors import Refusal
from mta.smtp.inspection import Inspected, MessageInspection, SessionInspection

ADDRESS, NAME = "127.0.0.1", "localhost"


class LocalMail:
    """One message of a program of this host, as inspectors see it.

    `refusal` is the one that came last.
    """

    def __init__(self, inspectors: Sequence[IInspector], hostname: str) -> None:
        session = Session(
            Service.SMTP, ADDRESS, None, hello=hostname, extended=True, name=NAME, pointer=NAME
        )
        self._session = SessionInspection(inspectors, session)
        self._message: MessageInspection | None = None
        self.refusal: Refusal | None = None

    async def begin(self, id: str, envelope: Envelope, origin: Origin, section: bytes) -> None:
        """Show all that comes before the body."""
        argument = MailArgument(
            envelope.reverse_path,
            body=envelope.body,
            smtputf8=envelope.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
        )
        try:
            await self._session.connected()
            await self._session.hello()
            self._message = await self._session.message(id, argument, origin)
            if self._message is not None:
                for recipient in envelope.recipients:
                    await self._message.recipient(recipient)
                await self._message.data()
                await self._message.header(envelope, section)
        except Refusal as refusal:
            self._refused(refusal)

    async def body(self, piece: bytes) -> None:
        """Show the next octets of the body."""
        if self._message is not None:
            try:
                await self._message.body(piece)
            except Refusal as refusal:
                self._refused(refusal)

    async def end(self, own: bytes, section: bytes, envelope: Envelope) -> Inspected:
        """Return the message as it is to be taken.

        It is on hold where it was refused.
        """
        if self._message is not None:
            try:
                return await self._message.end(own, section, envelope)
            except Refusal as refusal:
                self._refused(refusal)
        hold = f"refused: {self.refusal.reply}" if self.refusal is not None else ""
        return Inspected(own + section, envelope, hold)

    def close(self) -> None:
        """End the session."""
        if self._message is not None:
            self._message.abort()
        self._session.close()

    def _refused(self, refusal: Refusal) -> None:
        self.refusal = refusal
        if self._message is not None:
            self._message.abort()
            self._message = None
