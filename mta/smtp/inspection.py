"""The inspectors of a session, asked one after the other.

`mta.interfaces` has what an inspector sees.  A client that XFORWARD told is looked at as a session
of its own, for the one message that it brought.  Where none is configured, none of this is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, replace

from mta.interfaces import (
    IEnvelopeInspector,
    IInspector,
    IMessageInspector,
    ISessionInspector,
)
from mta.mail import Envelope, MailArgument, Recipient, Reply
from mta.queued import IDraft
from mta.session import Origin, Session
from mta.smtp.envelope_edits import edited
from mta.smtp.errors import Refusal
from mta.smtp.field_edits import EditedSection
from mta.verdict import Verdict


class SessionInspection:
    """The inspectors of one session, in the order of the configuration."""

    def __init__(self, inspectors: Sequence[IInspector], session: Session) -> None:
        self.all = inspectors
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


class ForwardedInspection(SessionInspection):
    """The inspectors of a client that another server told."""

    @classmethod
    async def begin(cls, other: SessionInspection, client: Session) -> ForwardedInspection:
        """Show it to the inspectors of the other session.

        Raises Refusal.
        """
        inspection = cls(other.all, client)
        try:
            await inspection.connected()
            if client.hello:
                await inspection.hello()
        except BaseException:
            inspection.close()
            raise
        return inspection

    async def message(
        self, id: str, argument: MailArgument, origin: Origin
    ) -> MessageInspection | None:
        """Begin its message, with which it ends.  Raises Refusal."""
        message = None
        try:
            message = await super().message(id, argument, origin)
        finally:
            if message is None:
                self.close()
        if message is not None:
            message.client = self
        return message


def for_one_client(reply: Reply) -> Reply:
    """Return a refusal that leaves the connection open for others."""
    return replace(reply, code=451) if reply.code == 421 else reply


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
    """The inspectors of one message.  Its coroutines raise Refusal.

    `client` is there where its client has inspectors of its own, which end with it.
    """

    __slots__ = ("_inspectors", "client")

    def __init__(self, inspectors: list[IMessageInspector]) -> None:
        self._inspectors = inspectors
        self.client: ForwardedInspection | None = None

    async def recipient(self, recipient: Recipient) -> None:
        """See `IMessageInspector.recipient`.

        Those behind one that refuses it hear of that.
        """
        for number, each in enumerate(self._inspectors, 1):
            try:
                await each.recipient(recipient)
            except Refusal as refusal:
                await self._tell_refused(recipient, refusal.reply, self._inspectors[number:])
                raise self._refusal(refusal) from None

    async def refused(self, recipient: Recipient, reply: Reply) -> None:
        """See `IEnvelopeInspector.refused`."""
        await self._tell_refused(recipient, reply, self._inspectors)

    async def data(self) -> None:
        """See `IEnvelopeInspector.data`."""
        await self._ask(
            each.data() for each in self._inspectors if IEnvelopeInspector.providedBy(each)
        )

    async def header(self, envelope: Envelope, section: bytes) -> None:
        """See `IMessageInspector.header`."""
        await self._ask(each.header(envelope, section) for each in self._inspectors)

    async def body(self, piece: bytes) -> None:
        """See `IMessageInspector.body`."""
        await self._ask(each.body(piece) for each in self._inspectors)

    async def end(self, own: bytes, section: bytes, envelope: Envelope) -> Inspected:
        """Collect the verdicts.

        `own` is our field on top of the header section.
        Those that have not given theirs when one refuses or discards the message are aborted.
        """
        fields = EditedSection(own, section)
        inspected = Inspected(b"", envelope)
        try:
            while self._inspectors and not inspected.discard:
                verdict = await self._verdict(fields.section)
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

    async def _tell_refused(
        self, recipient: Recipient, reply: Reply, inspectors: Iterable[IMessageInspector]
    ) -> None:
        for each in inspectors:
            if IEnvelopeInspector.providedBy(each):
                await each.refused(recipient, reply)

    async def _verdict(self, section: bytes) -> Verdict:
        try:
            return await self._inspectors[0].end(section)
        except Refusal as refusal:
            raise self._refusal(refusal) from None

    async def _ask(self, answers: Iterable[Awaitable[None]]) -> None:
        try:
            for answer in answers:
                await answer
        except Refusal as refusal:
            raise self._refusal(refusal) from None

    def _refusal(self, refusal: Refusal) -> Refusal:
        return refusal if self.client is None else Refusal(for_one_client(refusal.reply))

    def abort(self) -> None:
        """Abort what has not come to its end."""
        inspectors, self._inspectors = self._inspectors, []
        for each in inspectors:
            each.abort()
        if self.client is not None:
            self.client.close()
            self.client = None
