"""Inspectors, which look at mail on its way in."""

from __future__ import annotations

from zope.interface import Attribute, Interface

from mta.mail import Envelope, Hop, MailArgument, Mailbox, Recipient, Reply
from mta.session import Origin, Session
from mta.verdict import Verdict


class IInspector(Interface):
    """Looks at the mail of all sessions."""

    needs_name: bool = Attribute("whether `Session.name` is to be looked up before `connected`")

    def session(session: Session) -> ISessionInspector:
        """Return the inspector of one session, before its greeting."""


class ISessionInspector(Interface):
    """Looks at one session.

    The coroutines may take their time, and refuse by `mta.smtp.errors.Refusal`, which is then the
    reply.  `session` changes as the client goes on.
    """

    async def connected() -> None:
        """Look at the client, before the greeting."""

    async def hello() -> None:
        """Look at the name that HELO, EHLO or LHLO gave."""

    async def unknown(line: bytes) -> None:
        """Look at a command that is not known."""

    async def message(id: str, argument: MailArgument, origin: Origin) -> IMessageInspector | None:
        """Begin a message, as MAIL has come; None: leave it alone."""

    def close() -> None:
        """Note that the session is over, however it ended."""


class IMessageInspector(Interface):
    """Looks at one message.

    The coroutines refuse as those of `ISessionInspector` do; no more content is read while one has
    not returned.  Either `end` is called at last, or `abort`.
    """

    async def recipient(recipient: Recipient) -> None:
        """Look at a recipient that the access policy has allowed.

        A refusal is for this one alone.
        """

    async def header(envelope: Envelope, section: bytes) -> None:
        """Look at the header section.

        It is as it came, empty line and all, with the fields that a submission must have, and
        without our Received: field.  Where no empty line came, it may have text behind its fields.
        """

    async def body(piece: bytes) -> None:
        """Look at the next octets of the body, in any cut."""

    async def end(section: bytes) -> Verdict:
        """Return the verdict, as the content is complete.

        `section` is the header section as the inspectors before have changed it.
        """

    def abort() -> None:
        """Forget the message: it was refused, or the transaction ended without it."""


class IEnvelopeInspector(Interface):
    """Looks at more of the envelope.

    An `IMessageInspector` may provide this as well.
    """

    async def refused(recipient: Recipient, reply: Reply) -> None:
        """Hear of a recipient that this reply refuses, whatever is said."""

    async def data() -> None:
        """Look at the envelope as a whole: content is about to come.

        A refusal is the reply to DATA, or to the first BDAT.
        """


class IMailboxQuotas(Interface):
    """The room that mailboxes have by their quotas."""

    async def has_room(hop: Hop, address: Mailbox, octets: int) -> bool:
        """Tell whether so many octets fit into a mailbox.

        Where there is no quota, or it can't be seen, it fits.
        """


class IHeaderCheck(Interface):
    """A check of header sections, before anything is added to them."""

    def check(session: Session, envelope: Envelope, section: bytes) -> None:
        """Raise `mta.smtp.errors.Refusal` where content that begins so is not to be taken."""
