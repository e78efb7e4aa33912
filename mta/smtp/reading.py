"""Content on its way off the wire, by DATA or BDAT."""

from __future__ import annotations

from mta.interfaces import IChannel, IRoundRobin
from mta.smtp.content import DotReader
from mta.smtp.incoming import IncomingMessage

MIN_RATE = 16 * 1024  # octets of content in one time-out: about the speed of a slow modem
MAX_PIECE = 64 * 1024  # octets that are taken at once: as many as arrive at once
# Octets that a session brings before it takes them in turn with others: most mail is smaller.
MAX_SMALL = 64 * 1024


class ContentReader:
    """Takes the content of one session off the wire.

    In each `timeout` `MIN_RATE` octets must come: a client that sends an octet now and then would
    otherwise hold its connection for ever.  Sessions with much content take it in the `order`.
    """

    __slots__ = ("_channel", "_end", "_octets", "_order", "_since_mail", "_timeout")

    def __init__(self, channel: IChannel, timeout: float, order: IRoundRobin | None) -> None:
        self._channel = channel
        self._timeout = timeout
        self._order = order
        self._since_mail = 0  # octets since the last message

    def begin(self) -> None:
        """Begin content, or a chunk of it."""
        self._octets = 0
        self._end = self._channel.seconds() + self._timeout

    async def take(self, most: int = MAX_PIECE) -> bytes:
        """Wait for octets, and take so many of them at most."""
        channel = self._channel
        while not len(channel.wire):  # none came while the last piece was being written
            await channel.receive(self._end)
        if self._order is not None and self._since_mail >= MAX_SMALL:
            await self._order.next(id(self), channel.remote_address)
        octets: bytes = channel.wire.take(min(most, MAX_PIECE))
        self._since_mail += len(octets)
        return octets

    def count(self, octets: int) -> None:
        """Count content that came."""
        self._octets += octets
        if self._octets >= MIN_RATE:
            self.begin()

    def message(self) -> None:
        """Note that the content became a message."""
        self._since_mail = 0


async def read_data(reader: ContentReader, channel: IChannel, incoming: IncomingMessage) -> None:
    """Take content to the dot that ends it (RFC 5321 section 4.1.1.4)."""
    dots = DotReader()
    reader.begin()
    while not dots.ended:
        piece, rest = dots.decode(await reader.take())
        if piece:
            await incoming.write(piece)
            reader.count(len(piece))
    channel.wire.put_back(rest)


async def read_chunk(reader: ContentReader, size: int, incoming: IncomingMessage | None) -> None:
    """Take a chunk of `size` octets (RFC 3030 section 2).  Without a message it is thrown away."""
    reader.begin()
    while size:
        piece = await reader.take(size)
        size -= len(piece)
        if incoming is not None:
            await incoming.write(piece)
        reader.count(len(piece))
