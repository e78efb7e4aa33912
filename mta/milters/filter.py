"""One filter, asked about one SMTP session over one connection.

All coroutines raise `FilterFailure` where it fails, and `Refusal` where it refuses.
"""

from __future__ import annotations

from collections import deque

from mta.milters import negotiation, packets, replies
from mta.milters.connection import FilterConnection
from mta.milters.macros import Macros
from mta.milters.negotiation import BODY, DATA, END, END_OF_HEADER, FIELD, Agreement, Event
from mta.milters.packets import Packet
from mta.milters.replies import Decision
from mta.settings import MilterTimeouts
from mta.smtp.errors import Refusal

ABORT = packets.encode(b"A")
ENDS = (Decision.ACCEPT, Decision.DISCARD)  # as refusals do
SLOW = frozenset({DATA, FIELD, END_OF_HEADER, BODY, END})  # `timeouts.content` is for these


class Filter:
    """One filter, which has agreed on what it wants to hear."""

    def __init__(
        self,
        connection: FilterConnection,
        agreement: Agreement,
        macros: Macros,
        timeouts: MilterTimeouts,
    ) -> None:
        self.macros = macros
        self.agreement = agreement
        self._connection = connection
        self._timeouts = timeouts
        self._ahead: deque[Event] = deque()  # told, and the verdicts not asked for yet
        self._stale = 0  # verdicts to come on what was aborted
        self.is_in_step = True

    @classmethod
    async def open(
        cls, connection: FilterConnection, macros: Macros, timeouts: MilterTimeouts
    ) -> Filter:
        """Negotiate with a filter."""
        connection.write(negotiation.offer())
        packet = await connection.read(timeouts.command)
        return cls(connection, negotiation.agreement(packet), macros, timeouts)

    async def tell(self, event: Event, data: bytes = b"") -> Decision:
        """Tell an event, and return the verdict on it."""
        self.send(event, data)
        if not self._ahead:
            await self._connection.drain(self._timeout(event))
        return await self.settle()

    def send(self, event: Event, data: bytes = b"") -> None:
        """Send an event with its macros, before the next wait.

        Nothing is told that the filter does not want.
        """
        if event not in self.agreement.told:
            return
        octets = packets.encode(event.command, data)
        if event.stage is not None:
            values = self.macros.of(event.stage, self.agreement)
            octets = packets.macros(event.command, values) + octets
        self._connection.write(octets)
        if event in self.agreement.answered:
            self._ahead.append(event)

    async def send_ahead(self, event: Event, data: bytes) -> None:
        """Send an event, and leave the verdict to `settle`."""
        self.send(event, data)
        await self._connection.drain(self._timeout(event))

    async def settle(self) -> Decision:
        """Return the verdict on what was sent.

        It is the first one that ends the message, or the last.  That on END is not waited for.
        """
        decision = Decision.CONTINUE
        while self._ahead and self._ahead[0] is not END and decision not in ENDS:
            decision = self.take(await self.next_packet(self._ahead[0], len(self._ahead)))
        return decision

    def take(self, packet: Packet) -> Decision:
        """Return the verdict on the first event that waits for one.

        A filter that has ended the message may answer to what was sent behind that event, or not,
        as libmilter does: its next answer could be to either.
        """
        event = self._ahead.popleft()
        try:
            decision = replies.decision(event, packet)
        except Refusal:
            self.is_in_step = not self._ahead
            raise
        if decision in ENDS:
            self.is_in_step = not self._ahead
        return decision

    async def next_packet(self, event: Event, expected: int = 1) -> Packet:
        """Wait for the next packet, of so many that are expected.

        One that tells of progress starts the time anew.
        """
        while True:
            packet = await self._connection.read(self._timeout(event), expected + self._stale)
            if packet.command == replies.PROGRESS:
                continue
            if not self._stale:
                return packet
            self._stale -= 1

    def end_message(self) -> None:
        """End the message under way, however far it came.

        The filter hears of it with the next thing that it is told.
        """
        self.macros.end()
        self._stale += len(self._ahead)
        self._ahead.clear()
        self._connection.write(ABORT)

    def flush(self) -> None:
        """Let the filter hear at once of what it was sent."""
        self._connection.flush()

    def close(self) -> None:
        """End the session."""
        self._connection.quit()

    def abort(self) -> None:
        """Break the connection off."""
        self._connection.abort()

    def _timeout(self, event: Event) -> float:
        return self._timeouts.content if event in SLOW else self._timeouts.command
