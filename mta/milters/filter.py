"""One filter, asked about one SMTP session over one connection.

All coroutines raise `FilterFailure` where it fails, and `Refusal` where it refuses.
"""

from __future__ import annotations

from mta.milters import negotiation, packets, replies
from mta.milters.connection import FilterConnection
from mta.milters.macros import Macros
from mta.milters.negotiation import BODY, DATA, END, END_OF_HEADER, FIELD, Agreement, Event
from mta.milters.packets import Packet
from mta.milters.replies import Decision
from mta.settings import MilterTimeouts

ABORT = packets.encode(b"A")
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
        self._ahead: Event | None = None  # told, and the verdict not asked for yet
        self._stale = 0  # verdicts to come on what was aborted

    @classmethod
    async def open(
        cls, connection: FilterConnection, macros: Macros, timeouts: MilterTimeouts
    ) -> Filter:
        """Negotiate with a filter."""
        connection.write(negotiation.offer())
        packet = await connection.read(timeouts.command)
        return cls(connection, negotiation.agreement(packet), macros, timeouts)

    async def tell(self, event: Event, data: bytes = b"") -> Decision:
        """Tell an event, and return the verdict on it.  Nothing is told that it does not want."""
        if event not in self.agreement.told:
            return Decision.CONTINUE
        self.send(event, data)
        if event in self.agreement.answered:
            return await self.answer(event)
        if event is not FIELD:  # which goes out with what follows, and not in a packet of its own
            await self._connection.drain(self._timeout(event))
        return Decision.CONTINUE

    def send(self, event: Event, data: bytes = b"") -> None:
        """Send an event and its macros."""
        octets = packets.encode(event.command, data)
        if event.stage is not None:
            values = self.macros.of(event.stage, self.agreement)
            octets = packets.macros(event.command, values) + octets
        self._connection.write(octets)

    async def send_ahead(self, event: Event, data: bytes) -> None:
        """Send an event, and leave the verdict to `settle`."""
        self.send(event, data)
        if event in self.agreement.answered:
            self._ahead = event
        await self._connection.drain(self._timeout(event))

    async def settle(self) -> Decision:
        """Return the verdict on what was sent ahead."""
        event, self._ahead = self._ahead, None
        return Decision.CONTINUE if event is None else await self.answer(event)

    async def answer(self, event: Event) -> Decision:
        """Wait for the verdict on an event."""
        packet = await self.next_packet(event)
        return replies.decision(event, packet)

    async def next_packet(self, event: Event) -> Packet:
        """Wait for the next packet.

        One that tells of progress starts the time anew.
        """
        while True:
            packet = await self._connection.read(self._timeout(event))
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
        self._stale += self._ahead is not None
        self._ahead = None
        self._connection.write(ABORT)

    def abort_message(self) -> None:
        """End the message under way, and let the filter know at once."""
        self.end_message()
        self._connection.flush()

    def close(self) -> None:
        """End the session."""
        self._connection.quit()

    def abort(self) -> None:
        """Break the connection off."""
        self._connection.abort()

    def _timeout(self, event: Event) -> float:
        return self._timeouts.content if event in SLOW else self._timeouts.command
