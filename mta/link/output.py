"""The octets that a connection sends."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol

MAX_UNSENT = 64 * 1024  # octets kept for what is written next: as much as one write may take
KEEPALIVE_PROBES = 3  # of TCP, unanswered, before a connection is lost


class Output:
    """The octets to send, which go out together when the conversation waits.

    So they need few packets, and none is late, as it may be where small ones follow each other
    (RFC 896).  `is_congested`: the transport takes no more for now.  With `record_per_line` each
    line is a TLS record of its own, for clients that read one line and then wait for the socket,
    though more of the same record is with them already (fetchmail).
    """

    __slots__ = (
        "_is_direct",
        "_octets",
        "_pieces",
        "_record_per_line",
        "_transport",
        "is_congested",
        "is_open",
    )

    def __init__(self, *, record_per_line: bool = False) -> None:
        self.is_open = False
        self.is_congested = False
        self._record_per_line = record_per_line
        self._pieces: list[bytes] = []
        self._octets = 0
        self._is_direct = False  # past the transport, where nothing waits in it

    def open(self, transport: Any) -> None:
        """Send by this transport from now on."""
        self._transport = transport
        self.is_open = True
        self._is_direct = isinstance(transport, Connection)

    def lose(self) -> None:
        """Send nothing any more: the connection is gone."""
        self.is_open = self._is_direct = False

    def write(self, data: bytes) -> None:
        """Add octets."""
        self._pieces.append(data)
        self._octets += len(data)
        if self._octets > MAX_UNSENT:
            self.flush()

    def flush(self) -> None:
        """Send all octets."""
        if not self._pieces:
            return
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._octets = 0
        transport = self._transport
        if self._is_direct and not transport.TLS:
            data = self._send(data)
        if not (self.is_open and data):
            return
        if self._record_per_line and transport.TLS:
            for line in data.splitlines(keepends=True):
                # The transport itself would put them together.
                TLSMemoryBIOProtocol.write(transport.protocol, line)
        else:
            transport.write(data)

    def _send(self, data: bytes) -> bytes:
        """Give octets to the system; returns the rest, for the transport.

        The transport would send all of them a little later, after changing twice what the reactor
        watches: for short replies, this is most of their cost.
        """
        count = self._transport.writeSomeData(data)
        rest = data[count:] if isinstance(count, int) else data  # the transport finds it lost
        self._is_direct = not rest
        # Twisted resumes only what it has paused, and it pauses for much more than a short rest.
        self._transport.producerPaused = bool(rest)
        return rest

    def pause(self) -> None:
        """Note that the transport takes no more for now."""
        self.is_congested = True

    def resume(self) -> bool:
        """Note that the transport has sent all.  Returns whether it was congested."""
        was_congested, self.is_congested = self.is_congested, False
        self._is_direct = isinstance(self._transport, Connection)
        return was_congested

    def close(self) -> None:
        """End the connection once all octets are sent."""
        self._transport.unregisterProducer()
        self._transport.loseConnection()

    def abort(self) -> None:
        """End the connection now."""
        if self.is_open:
            self._transport.abortConnection()

    def notice_loss(self, seconds: float) -> None:
        """See `IIdleWait.notice_loss`."""
        if not (self.is_open and isinstance(self._transport, Connection)):
            return
        handle = self._transport.socket  # `getHandle` is that of TLS, where it is on
        if handle.family not in (socket.AF_INET, socket.AF_INET6):
            return
        pause = max(1, int(seconds / (KEEPALIVE_PROBES + 1)))  # the first probe comes after one
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, pause),
            (socket.TCP_KEEPINTVL, pause),
            (socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
            (socket.TCP_USER_TIMEOUT, int(seconds * 1000)),
        ):
            handle.setsockopt(socket.IPPROTO_TCP, option, value)
