"""The inspector of full mailboxes, where a relay's sender waits.

Elsewhere such mail is taken, and waits until there is room.
"""

from __future__ import annotations

from zope.interface import implementer

from mta.interfaces import (
    IInspector,
    IMailboxQuotas,
    IMessageInspector,
    IRouter,
    ISessionInspector,
)
from mta.mail import Envelope, MailArgument, Recipient, Reply
from mta.session import Origin, Session
from mta.smtp.errors import Refusal
from mta.verdict import ACCEPT, Verdict

MAILBOX_FULL = Reply(552, "5.2.2", ("Mailbox full",))


@implementer(IInspector)
class QuotaInspector:
    """Looks at recipients of mail whose sender waits."""

    needs_name = False

    def __init__(self, router: IRouter, quotas: IMailboxQuotas) -> None:
        self.router = router
        self.quotas = quotas

    def session(self, session: Session) -> ISessionInspector:
        """See `IInspector.session`."""
        return _Client(self, session)


@implementer(ISessionInspector)
class _Client:
    """Looks at the messages of one session."""

    def __init__(self, inspector: QuotaInspector, session: Session) -> None:
        self._inspector = inspector
        self._session = session

    async def connected(self) -> None:
        """Let all clients pass."""

    async def hello(self) -> None:
        """Let all names pass."""

    async def unknown(self, line: bytes) -> None:
        """Leave the reply to the receiver."""

    async def message(
        self, id: str, argument: MailArgument, origin: Origin
    ) -> IMessageInspector | None:
        """Look at the recipients of a message whose sender waits."""
        return _Message(self._inspector, argument) if self._session.sender_waits else None

    def close(self) -> None:
        """Forget nothing: nothing was kept."""


@implementer(IMessageInspector)
class _Message:
    """Looks at the recipients of one message."""

    def __init__(self, inspector: QuotaInspector, argument: MailArgument) -> None:
        self._inspector = inspector
        self._argument = argument

    async def recipient(self, recipient: Recipient) -> None:
        """Refuse it where none of the mailboxes behind it has room."""
        inspector, argument = self._inspector, self._argument
        for address, hop in inspector.router.route(recipient.forward_path, argument.reverse_path):
            if await inspector.quotas.has_room(hop, address, argument.size or 0):
                return
        raise Refusal(MAILBOX_FULL)

    async def header(self, envelope: Envelope, section: bytes) -> None:
        """Let all header sections pass."""

    async def body(self, piece: bytes) -> None:
        """Let all bodies pass."""

    async def end(self, section: bytes) -> Verdict:
        """Let the message pass."""
        return ACCEPT

    def abort(self) -> None:
        """Forget nothing: nothing was kept."""
