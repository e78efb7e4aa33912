"""One connection to a filter, on which each wait has an end."""

from __future__ import annotations

from collections import deque
from socket import AF_UNIX, IPPROTO_TCP, TCP_QUICKACK
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.milters import packets
from mta.milters.packets import FilterFailure, Packet, PacketReader

QUIT = b"Q"
MAX_UNREAD = 1024 * 1024  # octets of packets that were not asked for yet

_CONTINUE = Packet(b"c")  # the only one that is not looked at before others that are expected


@implementer(IPushProducer)
class FilterConnection(Protocol):
    """Carries packets.  At most one coroutine waits for it at a time."""

    transport: Any  # ITCPTransport or IUNIXTransport

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._reader = PacketReader()
        self._packets: deque[Packet] = deque()
        self._unread = 0
        self._expected = 0  # packets that are still to come before the wait is over
        self._end_reason = ""
        self._waiting: Deferred[None] | None = None
        self._unsent = bytearray()
        self._is_direct = False  # past the transport, where nothing waits in it
        self._is_tcp = False
        self._is_congested = False
        self._is_paused = False
        self._deadline = 0.0  # of the wait, by the clock
        self._alarm: IDelayedCall | None = None

    # --- what the conversation does

    def write(self, octets: bytes) -> None:
        """Send packets, at the latest when something is waited for."""
        self._unsent += octets

    def flush(self) -> None:
        """Send all packets now."""
        octets = bytes(self._unsent)
        self._unsent.clear()
        if self._end_reason or not octets:
            return
        if self._is_direct:
            octets = self._send(octets)
        if octets:
            self.transport.write(octets)

    async def read(self, seconds: float, expected: int = 1) -> Packet:
        """Return the next packet, of so many that are expected.

        Raises FilterFailure where none comes in time.
        """
        self.flush()
        while not self._packets:
            self._expected = expected
            await self._wait(seconds)
        packet = self._packets.popleft()
        self._unread -= len(packet.data)
        if self._is_paused and self._unread <= MAX_UNREAD:
            self._is_paused = False
            self.transport.resumeProducing()
        return packet

    async def drain(self, seconds: float) -> None:
        """Wait until most of what was written is sent.  Raises FilterFailure."""
        self.flush()
        while self._is_congested or self._end_reason:
            await self._wait(seconds)

    def quit(self) -> None:
        """Say good-bye, and close."""
        if not self._end_reason:
            self.write(packets.encode(QUIT))
            self.flush()
            self._end("closed")
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once."""
        self._end("closed")
        if self.transport is not None:
            self.transport.abortConnection()

    def _send(self, octets: bytes) -> bytes:
        """Give octets to the system; returns the rest, for the transport.

        The transport would send them a little later, after changing twice what the reactor watches.
        """
        count = self.transport.writeSomeData(octets)
        if self._is_tcp:  # libmilter sends the next answer when it knows that this one has come
            self.transport.socket.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)
        rest = octets[count:] if isinstance(count, int) else octets  # the transport finds it lost
        self._is_direct = not rest
        # Twisted resumes only what it has paused, and it pauses for much more than a short rest.
        self.transport.producerPaused = bool(rest)
        return rest

    async def _wait(self, seconds: float) -> None:
        if self._end_reason:
            raise FilterFailure(self._end_reason)
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        self._deadline = self._clock.seconds() + seconds
        if self._alarm is None:
            self._alarm = self._clock.callLater(seconds, self._time_passed)
        elif self._alarm.getTime() > self._deadline:  # of a wait that could have been longer
            self._alarm.reset(seconds)
        try:
            await waiting
        except TimeoutError:
            raise FilterFailure(f"no answer within {seconds:.0f} seconds") from None
        finally:
            self._waiting = None

    def _time_passed(self) -> None:
        """Look at the time.  One alarm serves for many waits: few of them take long."""
        self._alarm = None
        if self._waiting is None:
            return
        left = self._deadline - self._clock.seconds()
        if left > 0:
            self._alarm = self._clock.callLater(left, self._time_passed)
        elif not self._waiting.called:
            self._waiting.errback(TimeoutError())

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)

    def _end(self, reason: str) -> None:
        self._end_reason = self._end_reason or reason
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._wake()

    # --- Twisted calls these

    def connectionMade(self) -> None:
        """Twisted calls this when the connection stands."""
        self.transport.registerProducer(self, True)
        self._is_direct = isinstance(self.transport, Connection)
        self._is_tcp = self._is_direct and self.transport.socket.family != AF_UNIX
        if self._is_tcp:
            self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        """Twisted calls this with the octets that arrived."""
        try:
            arrived = self._reader.feed(data)
        except FilterFailure as failure:
            self._end(str(failure))
            self.transport.abortConnection()
            return
        self._packets.extend(arrived)
        self._expected -= len(arrived)
        self._unread += sum(len(packet.data) for packet in arrived)
        if self._unread > MAX_UNREAD and not self._is_paused:
            self._is_paused = True
            self.transport.pauseProducing()
        if arrived and (self._expected <= 0 or any(each != _CONTINUE for each in arrived)):
            self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted calls this when the connection is gone."""
        self._end("it closed the connection")

    def pauseProducing(self) -> None:
        """Twisted calls this when the filter takes less than we write."""
        self._is_congested = True

    def resumeProducing(self) -> None:
        """Twisted calls this when the filter has taken what we wrote."""
        self._is_congested = False
        self._is_direct = isinstance(self.transport, Connection)
        self._wake()

    def stopProducing(self) -> None:
        """Twisted calls this when nothing more can be written."""
