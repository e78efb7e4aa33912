"""The inspectors of a session, asked one after the other.

`mta.interfaces` has what an inspector sees.  Where none is configured, none of this is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mta.interfaces import IInspector, IMessageInspector, ISessionInspector
from mta.mail import Envelope, MailArgument, Recipient
from mta.queued import IDraft
from mta.session import Origin, Session
from mta.smtp.envelope_edits import edited
from mta.smtp.field_edits import EditedSection
from mta.verdict import Verdict


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
    """A message that all inspectors have let pass, as they left it.

    One that has lost all its recipients goes to no address: it is discarded.
    """

    header: bytes
    envelope: Envelope
    hold: str = ""
    discard: bool = False
    body: IDraft | None = None  # in place of the one that came
    junk: str = ""

    def add(self, verdict: Verdict) -> None:
        """Take over what the next verdict says, but for the fields."""
        self.envelope = edited(self.envelope, verdict.envelope_edits)
        self.hold = "; ".join(filter(None, (self.hold, verdict.hold)))
        self.junk = "; ".join(filter(None, (self.junk, verdict.junk)))
        if verdict.body is not None:
            self.discard_body()
            self.body = verdict.body
        self.discard = verdict.discard or not self.envelope.recipients

    def discard_body(self) -> None:
        """Forget the other body, where there is one."""
        if self.body is not None:
            self.body.discard()
            self.body = None


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
        fields = EditedSection(own, section)
        inspected = Inspected(b"", envelope)
        try:
            while self._inspectors and not inspected.discard:
                verdict = await self._inspectors[0].end(fields.section)
                del self._inspectors[0]
                fields.apply(verdict.edits)
                inspected.add(verdict)
        except BaseException:
            inspected.discard_body()
            raise
        finally:
            self.abort()
        inspected.header = fields.octets
        return inspected

    def abort(self) -> None:
        """Abort what has not come to its end."""
        inspectors, self._inspectors = self._inspectors, []
        for each in inspectors:
            each.abort()
