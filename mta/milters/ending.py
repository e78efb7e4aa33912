"""The end of a message: changes, and then the verdict."""

from __future__ import annotations

from mta.interfaces import ISpool
from mta.mail import Body, Envelope, Reply
from mta.milters import replies
from mta.milters.changes import REPLACE_BODY, Changes, NewBody
from mta.milters.filter import Filter
from mta.milters.negotiation import END
from mta.milters.packets import FilterFailure, Packet
from mta.milters.replies import Decision
from mta.queued import SpoolFull
from mta.smtp.errors import Refusal
from mta.smtp.replies import LOCAL_ERROR, SPOOL_FULL
from mta.verdict import Verdict

MAX_REASON = 200  # characters of a reason to hold a message, which the queue list shows


class Ending:
    """Takes the changes, and makes a verdict of them.

    What can't be done is known before the verdict comes: all is read until then, so that filter and
    server stay in step.  `max_size`: octets of another body; `envelope`: that with which the
    message came.
    """

    def __init__(
        self,
        filter: Filter,
        spool: ISpool,
        max_size: int,
        envelope: Envelope,
    ) -> None:
        self._filter = filter
        self._spool = spool
        self._max_size = max_size
        self._envelope = envelope
        self._changes = Changes(keeps_leading_space=filter.agreement.keeps_leading_space)
        self._body: NewBody | None = None
        self._hold = ""
        self._problem = ""
        self._refusal: Reply | None = None

    async def verdict(self) -> Verdict:
        """Return the verdict, for which END has asked.  Raises Refusal or FilterFailure."""
        try:
            packet = await self._filter.next_packet(END)
            while not replies.is_verdict(packet):
                await self._take(packet)
                packet = await self._filter.next_packet(END)
            return self._made(self._filter.take(packet))
        except BaseException:
            if self._body is not None:
                self._body.draft.discard()
            raise

    @property
    def changes(self) -> str:
        """The changes in words, for the log; empty: none."""
        words = [self._changes.described(), "body replaced" if self._body else ""]
        return ", ".join(filter(None, words))

    async def _take(self, packet: Packet) -> None:
        """Take a change."""
        try:
            if packet.command == replies.QUARANTINE:
                self._hold = replies.reason_of(packet.data)[:MAX_REASON]
            elif packet.command == REPLACE_BODY:
                await self._replace_body(packet.data)
            else:
                self._changes.add(packet)
        except FilterFailure as failure:
            self._problem = self._problem or str(failure)
        except OSError as error:
            self._refusal = SPOOL_FULL if isinstance(error, SpoolFull) else LOCAL_ERROR

    async def _replace_body(self, piece: bytes) -> None:
        if self._body is None:
            draft, in_lines = self._spool.draft(), self._envelope.body is not Body.BINARY
            draft.address(self._envelope)
            self._body = NewBody(draft, self._max_size, in_lines=in_lines)
        await self._body.write(piece)

    def _made(self, decision: Decision) -> Verdict:
        if self._body is not None:
            self._body.end()
            self._problem = self._problem or self._body.problem
        if self._problem:
            raise FilterFailure(self._problem, is_in_step=True)
        if self._refusal is not None:
            raise Refusal(self._refusal)
        body = self._body.draft if self._body else None
        discard = decision is Decision.DISCARD
        return self._changes.verdict(hold=self._hold, discard=discard, body=body)
