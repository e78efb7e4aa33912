"""One message as a filter sees it, from MAIL to the verdict."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IEnvelopeInspector, IMessageInspector
from mta.mail import NULL_PATH, Envelope, Hop, MailArgument, Mailbox, Recipient, Reply
from mta.milters import events
from mta.milters.ending import Ending
from mta.milters.negotiation import BODY, DATA, END, END_OF_HEADER, FIELD, MAIL, RECIPIENT, Event
from mta.milters.packets import MAX_DATA, FilterFailure
from mta.milters.replies import Decision
from mta.smtp import header
from mta.smtp.errors import Refusal
from mta.smtp.wire import CRLF
from mta.verdict import Verdict

if TYPE_CHECKING:
    from mta.milters.filter import Filter
    from mta.milters.inspector import FilteredSession

_NO_ENVELOPE = Envelope(NULL_PATH, ())


@implementer(IMessageInspector, IEnvelopeInspector)
class FilteredMessage:
    """Lets a filter look at one message.

    The body is told in chunks, each sent once the filter has answered to the one before: while it
    works, the next one arrives, and no more than these two are in memory.
    """

    log = Logger()

    def __init__(self, session: FilteredSession, id: str, hold: str) -> None:
        self._session = session
        self._id = id
        self._verdict = Verdict(hold=hold)
        self._is_over = session.filter is None  # nothing more is told
        self._failed: Refusal | None = None  # without the filter nothing passes
        self._skipped: set[Event] = set()
        self._chunk = bytearray()
        self._envelope = _NO_ENVELOPE

    async def begin(self, argument: MailArgument) -> None:
        """Begin with MAIL.  Raises Refusal."""
        if not self._is_over:
            self._filter.macros.begin(self._id, argument.reverse_path, argument.auth or "")
            await self._attempt(self._tell(MAIL, events.mail(argument)))

    async def recipient(self, recipient: Recipient) -> None:
        """See `IMessageInspector.recipient`."""
        self._require_filter()
        if not self._is_over and RECIPIENT in self._filter.agreement.told:
            path = recipient.forward_path
            self._filter.macros.recipient(path, self._hop(path))
            await self._attempt(self._tell(RECIPIENT, events.recipient(recipient)))

    async def refused(self, recipient: Recipient, reply: Reply) -> None:
        """See `IEnvelopeInspector.refused`."""
        if not self._is_over and self._session.filter is not None:
            agreement = self._filter.agreement
            if agreement.hears_refused and RECIPIENT in agreement.told:
                with suppress(Refusal):  # of a filter that failed: what follows hears it
                    await self._attempt(self._tell_refused(recipient, reply))

    async def data(self) -> None:
        """See `IEnvelopeInspector.data`."""
        self._require_filter()
        if not self._is_over:
            await self._attempt(self._tell(DATA))

    async def header(self, envelope: Envelope, section: bytes) -> None:
        """See `IMessageInspector.header`."""
        self._envelope = envelope
        self._require_filter()
        if not self._is_over:
            await self._attempt(self._tell_header(section))

    async def body(self, piece: bytes) -> None:
        """See `IMessageInspector.body`."""
        self._require_filter()
        if not self._is_over:
            await self._attempt(self._tell_body(piece))

    async def end(self, section: bytes) -> Verdict:
        """See `IMessageInspector.end`."""
        self._require_filter()
        if not self._is_over:
            await self._attempt(self._finish())
        self._session.end_message()
        self._note_result()
        return self._verdict

    def abort(self) -> None:
        """See `IMessageInspector.abort`."""
        self._session.end_message()
        if self._session.filter is not None:
            self._session.filter.flush()

    # --- telling

    async def _tell(self, event: Event, data: bytes = b"") -> None:
        if not self._is_over and event not in self._skipped:
            self._take(event, await self._filter.tell(event, data))

    async def _tell_refused(self, recipient: Recipient, reply: Reply) -> None:
        self._filter.macros.refused(reply)
        with suppress(Refusal):  # it is refused anyway
            await self._tell(RECIPIENT, events.recipient(recipient))

    async def _tell_header(self, section: bytes) -> None:
        """Tell the header section.

        Text behind the fields, with no empty line before it, is body to most readers.
        """
        keeps_leading_space = self._filter.agreement.keeps_leading_space
        fields = header.fields(section) if FIELD in self._filter.agreement.told else ()
        for field in fields:
            self._filter.send(FIELD, events.field(field, keeps_leading_space=keeps_leading_space))
        await self._tell(END_OF_HEADER)
        text = section[header.end_of_fields(section) :]
        if text not in (b"", CRLF):
            await self._tell_body(text)

    async def _tell_body(self, piece: bytes) -> None:
        if BODY in self._skipped or BODY not in self._filter.agreement.told:
            return
        self._chunk += piece
        while len(self._chunk) >= MAX_DATA and not self._is_over:
            chunk = bytes(memoryview(self._chunk)[:MAX_DATA])
            del self._chunk[:MAX_DATA]
            await self._send_chunk(chunk)

    async def _send_chunk(self, chunk: bytes) -> None:
        await self._settle()
        if not self._is_over and BODY not in self._skipped:
            await self._filter.send_ahead(BODY, chunk)

    async def _settle(self) -> None:
        self._take(BODY, await self._filter.settle())

    async def _finish(self) -> None:
        """Tell the rest, and ask for the verdict.

        The client waits for it no longer than this takes.
        """
        if self._chunk:
            await self._settle()
        if self._is_over:
            return
        if self._chunk:
            self._filter.send(BODY, bytes(self._chunk))
        self._filter.send(END)
        await self._settle()
        if self._is_over:
            return
        surroundings = self._session.surroundings
        ending = Ending(self._filter, surroundings.spool, surroundings.max_body, self._envelope)
        asking = Deferred.fromCoroutine(ending.verdict())
        asking.addTimeout(surroundings.max_end, surroundings.reactor)
        try:
            verdict = await asking
        except TimeoutError:
            reason = f"no verdict within {surroundings.max_end:.0f} seconds"
            raise FilterFailure(reason) from None
        name = self._session.milter.name
        self._verdict = replace(verdict, hold=verdict.hold and f"{name}: {verdict.hold}")
        if changes := ending.changes:
            self.log.info(
                "{queue_id} changed by filter {filter}: {changes}",
                queue_id=self._id,
                filter=name,
                changes=changes,
            )

    def _take(self, event: Event, decision: Decision) -> None:
        """Go by the verdict on an event."""
        match decision:
            case Decision.ACCEPT:
                self._is_over = True
            case Decision.DISCARD:
                self._is_over = True
                self._verdict = Verdict(discard=True)
            case Decision.SKIP:
                self._skipped.add(event)
                self._chunk.clear()

    async def _attempt(self, telling: Awaitable[None]) -> None:
        """Let the filter be told.  Raises Refusal where it refuses, or has to be there."""
        try:
            await telling
        except FilterFailure as failure:
            self._is_over = True
            try:
                self._verdict = Verdict(hold=self._session.failed(failure, self._id))
            except Refusal as refusal:
                self._failed = refusal
                raise
        except Refusal as refusal:
            self._session.refused(self._id, refusal.reply)
            raise

    def _require_filter(self) -> None:
        """Refuse the rest of a message without the filter that it needs."""
        if self._session.filter is None and not self._is_over:  # it failed at another command
            self._is_over = True
            self._verdict = Verdict(hold=self._session.hold)
            if self._session.refusal is not None:
                self._failed = Refusal(self._session.refusal)
        if self._failed is not None:
            raise Refusal(self._failed.reply)

    def _note_result(self) -> None:
        name, verdict = self._session.milter.name, self._verdict
        result = "accepted"
        if verdict.discard:
            result = "discarded"
            self.log.info("{queue_id} discarded by filter {filter}", queue_id=self._id, filter=name)
        elif verdict.hold:
            result = "held"
        self._session.surroundings.meter.filtered(name, result)

    @property
    def _filter(self) -> Filter:
        """The filter, which there is as long as something is told."""
        assert self._session.filter is not None
        return self._session.filter

    def _hop(self, forward_path: Mailbox) -> Hop | None:
        """The first hop on the way of a recipient, if any."""
        try:
            ways = self._session.surroundings.router.route(forward_path)
        except Refusal:
            return None
        return next((hop for _, hop in ways), None)
