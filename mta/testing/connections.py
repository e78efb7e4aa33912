"""Connections in memory, for `mta.link.Link` and what stands on it."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ITLSTransport
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.test.iosim import makeFakeClient, makeFakeServer
from zope.interface import implementer

from mta.interfaces import IClientTLS, ITLSContext
from mta.link import Link
from mta.mail import Security
from mta.session import TLSInfo

SECURED = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", bits=256)


class MemoryTransport(StringTransport):
    """A connection that counts its writes.  With `is_full` it asks for a pause."""

    writes = 0
    is_full = False

    def write(self, data: bytes) -> None:
        """Take octets, and pause the producer where `is_full` is set."""
        self.writes += 1
        super().write(data)
        if self.is_full:
            assert self.producer is not None
            self.producer.pauseProducing()

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        data: bytes = self.value()
        self.clear()
        return data


@implementer(IClientTLS, ITLSContext)
class FakeTLS:
    """TLS that begins when the test calls `handshakeCompleted` of the link.

    `certificate`: the fingerprint that the peer proves.
    """

    def __init__(self, certificate: str = "") -> None:
        self.started = 0
        self._info = replace(SECURED, certificate=certificate)

    def for_host(self, hostname: str, security: Security, pin: str = "") -> ITLSContext:
        """Return itself, for all."""
        return self

    def start(self, transport: ITLSTransport) -> None:
        """Count, and wait for the test."""
        self.started += 1

    def info(self, transport: ITLSTransport) -> TLSInfo:
        """Return what TLS says of the connection."""
        return self._info


class ConnectionPair:
    """One connection between two links, whose writes the test carries.

    It stands until it is cut.  With `is_dead` it carries nothing, and neither side is told.
    `carried`: how many writes came to the other side.
    """

    def __init__(self, client: Link, server: Link) -> None:
        self.client, self.server = client, server
        self.carried = 0
        self.is_cut = False
        self.is_dead = False
        self._up = [server, client]  # those that are not told of the end
        self._client_end, self._server_end = makeFakeClient(client), makeFakeServer(server)
        server.makeConnection(self._server_end)
        client.makeConnection(self._client_end)

    def transmitted(self, octets: bytes) -> bytes:
        """Return what arrives of a write.  Tests replace it to damage something."""
        return octets

    def carry_write(self) -> bool:
        """Carry one write to the other side; returns whether there was one."""
        ends = ((self._client_end, self.server), (self._server_end, self.client))
        for transport, other in ends:
            if transport.stream:
                other.dataReceived(self.transmitted(transport.stream.pop(0)))
                self.carried += 1
                return True
        return False

    def carry(self) -> bool:
        """Carry one write, or else the end.  Returns whether there was one."""
        if self.is_cut:
            return False
        if self.is_dead:
            return self._close_alone()
        if self.carry_write():
            return True
        if self.is_closed_by_client or self.is_closed_by_server:
            self.cut()
            return True
        return False

    def _close_alone(self) -> bool:
        """Tell a side that closed the connection that it is gone."""
        ends = ((self._client_end, self.client), (self._server_end, self.server))
        closed = [link for transport, link in ends if transport.disconnecting and link in self._up]
        for link in closed:
            self._up.remove(link)
            link.connectionLost(Failure(ConnectionLost()))
        return bool(closed)

    def said_by_client(self) -> list[bytes]:
        """Return the writes of the client that were not carried."""
        return list(self._client_end.stream)

    @property
    def is_closed_by_client(self) -> bool:
        """Tell whether the client has closed its end."""
        return bool(self._client_end.disconnecting)

    @property
    def is_closed_by_server(self) -> bool:
        """Tell whether the server has closed its end."""
        return bool(self._server_end.disconnecting)

    def cut(self) -> None:
        """Break the connection, if it stands.  What was on its way is lost."""
        self.is_cut = True
        while self._up:
            self._up.pop(0).connectionLost(Failure(ConnectionLost()))
