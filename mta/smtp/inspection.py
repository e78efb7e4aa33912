"""The inspectors of a session, asked one after the other.

`mta.interfaces` has what an inspector sees.  Where none is configured, none of this is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zope.interface import implementer

from mta.interfaces import (
    IHeaderCheck,
    IInspector,
    IMessageInspector,
    ISessionInspector,
)
from mta.mail import Envelope, MailArgument, Recipient
from mta.session import Origin, Session
from mta.smtp.field_edits import EditedSection
from mta.verdict import ACCEPT, Verdict


class SessionInspection:
    """The inspectors of one session, in the order of the configuration."""

    def __init__(self, inspectors: Sequence[IInspector], session: Session) -> None:
        self._inspectors: list[ISessionInspector] = [each.session(session) for each in inspectors]

    async def connected(self) -> None:
        """See `ISessionInspector.connected`."""
        for each in self._inspectors:
            await each.connected()

    async def hello(self) -> None:
        """See `ISessionInspector.hello`."""
        for each in self._inspectors:
            await each.hello()

    async def unknown(self, line: bytes) -> None:
        """See `ISessionInspector.unknown`."""
        for each in self._inspectors:
            await each.unknown(line)

    async def message(
        self, id: str, argument: MailArgument, origin: Origin
    ) -> MessageInspection | None:
        """Begin a message; None: there is nothing to look at in it.  Raises Refusal."""
        begun: list[IMessageInspector] = []
        try:
            for each in self._inspectors:
                inspector = await each.message(id, argument, origin)
                if inspector is not None:
                    begun.append(inspector)
        except BaseException:
            MessageInspection(begun).abort()
            raise
        return MessageInspection(begun) if begun else None

    def close(self) -> None:
        """See `ISessionInspector.close`."""
        for each in self._inspectors:
            each.close()


@dataclass(slots=True)
class Inspected:
    """A message that all inspectors have let pass, as they left it."""

    header: bytes
    envelope: Envelope
    hold: str = ""
    discard: bool = False


class MessageInspection:
    """The inspectors of one message.  Its coroutines raise Refusal."""

    __slots__ = ("_inspectors",)

    def __init__(self, inspectors: list[IMessageInspector]) -> None:
        self._inspectors = inspectors

    async def recipient(self, recipient: Recipient) -> None:
        """See `IMessageInspector.recipient`."""
        for each in self._inspectors:
            await each.recipient(recipient)

    async def header(self, envelope: Envelope, section: bytes) -> None:
        """See `IMessageInspector.header`."""
        for each in self._inspectors:
            await each.header(envelope, section)

    async def body(self, piece: bytes) -> None:
        """See `IMessageInspector.body`."""
        for each in self._inspectors:
            await each.body(piece)

    async def end(self, own: bytes, section: bytes, envelope: Envelope) -> Inspected:
        """Collect the verdicts.

        `own` is our field on top of the header section.
        Those that have not given theirs when one refuses or discards the message are aborted.
        """
        edited = EditedSection(own, section)
        holds: list[str] = []
        try:
            while self._inspectors:
                verdict = await self._inspectors[0].end(edited.section)
                del self._inspectors[0]
                edited.apply(verdict.edits)
                envelope = verdict.envelope or envelope
                holds += [verdict.hold] if verdict.hold else []
                if verdict.discard:
                    return Inspected(edited.octets, envelope, discard=True)
        finally:
            self.abort()
        return Inspected(edited.octets, envelope, "; ".join(holds))

    def abort(self) -> None:
        """Abort what has not come to its end."""
        inspectors, self._inspectors = self._inspectors, []
        for each in inspectors:
            each.abort()


@implementer(IInspector)
class HeaderChecks:
    """The inspector for checks that need the header section alone."""

    needs_name = False

    def __init__(self, checks: Sequence[IHeaderCheck]) -> None:
        self._checks = checks

    def session(self, session: Session) -> ISessionInspector:
        """See `IInspector.session`."""
        return _CheckedSession(self._checks, session)


@implementer(ISessionInspector)
class _CheckedSession:
    """Checks header sections, and nothing else of a session."""

    def __init__(self, checks: Sequence[IHeaderCheck], session: Session) -> None:
        self._checks = checks
        self._session = session

    async def connected(self) -> None:
        """Let all clients pass."""

    async def hello(self) -> None:
        """Let all names pass."""

    async def unknown(self, line: bytes) -> None:
        """Leave the reply to the receiver."""

    async def message(self, id: str, argument: MailArgument, origin: Origin) -> IMessageInspector:
        """Begin to check a message."""
        return _CheckedMessage(self._checks, self._session)

    def close(self) -> None:
        """Forget nothing: nothing was kept."""


@implementer(IMessageInspector)
class _CheckedMessage:
    """Checks the header section of one message."""

    __slots__ = ("_checks", "_session")

    def __init__(self, checks: Sequence[IHeaderCheck], session: Session) -> None:
        self._checks = checks
        self._session = session

    async def recipient(self, recipient: Recipient) -> None:
        """Let all recipients pass."""

    async def header(self, envelope: Envelope, section: bytes) -> None:
        """Check it.  Raises Refusal."""
        for each in self._checks:
            each.check(self._session, envelope, section)

    async def body(self, piece: bytes) -> None:
        """Let the body pass."""

    async def end(self, section: bytes) -> Verdict:
        """Let the message pass: it was checked before."""
        return ACCEPT

    def abort(self) -> None:
        """Forget nothing: nothing was kept."""
