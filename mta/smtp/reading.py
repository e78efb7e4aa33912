"""Content on its way off the wire, by DATA or BDAT."""

from __future__ import annotations

from mta.interfaces import IChannel
from mta.smtp.content import DotReader
from mta.smtp.incoming import IncomingMessage

MIN_RATE = 16 * 1024  # octets of content in one time-out: about the speed of a slow modem


class RateFloor:
    """A floor under the speed of content.  In each time-out `MIN_RATE` octets must come.

    A client that sends an octet now and then would otherwise hold its connection for ever.
    """

    __slots__ = ("_channel", "_end", "_octets", "_timeout")

    def __init__(self, channel: IChannel, timeout: float) -> None:
        self._channel = channel
        self._timeout = timeout
        self._begin()

    def _begin(self) -> None:
        self._octets = 0
        self._end = self._channel.seconds() + self._timeout

    def count(self, octets: int) -> None:
        """Count content that came."""
        self._octets += octets
        if self._octets >= MIN_RATE:
            self._begin()

    async def receive(self) -> None:
        """As `IChannel.receive`, for as long as may be waited now."""
        await self._channel.receive(self._end)


async def read_data(channel: IChannel, timeout: float, incoming: IncomingMessage) -> None:
    """Take content to the dot that ends it (RFC 5321 section 4.1.1.4)."""
    reader, floor = DotReader(), RateFloor(channel, timeout)
    while not reader.ended:
        octets = channel.wire.take()
        if not octets:  # none came while the last piece was being written
            await floor.receive()
            continue
        piece, rest = reader.decode(octets)
        if piece:
            await incoming.write(piece)
            floor.count(len(piece))
    channel.wire.put_back(rest)


async def read_chunk(
    channel: IChannel, timeout: float, size: int, incoming: IncomingMessage | None
) -> None:
    """Take a chunk of `size` octets (RFC 3030 section 2).  Without a message it is thrown away."""
    floor = RateFloor(channel, timeout)
    while size:
        piece = channel.wire.take(size)
        if not piece:
            await floor.receive()
            continue
        size -= len(piece)
        if incoming is not None:
            await incoming.write(piece)
        floor.count(len(piece))
