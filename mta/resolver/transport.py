"""One query over the network, and the octets that come back.

Each datagram has a port of its own, which the system chooses at random (RFC 5452 section 9.2).
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError, ConnectError, ConnectingCancelledError
from twisted.internet.protocol import DatagramProtocol, connectionDone
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from mta.resolver.query import Query
from mta.resolver.resolv_conf import Server

TCP_TIMEOUT = 10.0  # seconds, for the connection and for the answer
MAX_STRAYS = 20  # messages that do not fit: more, and an attacker guesses


class Unanswered(Exception):
    """The server said nothing, or can't be reached."""


class Flooded(Exception):
    """Many messages came that fit no query.

    The next one might fit by chance.
    """


class Transport:
    """Carries queries to name servers, by the reactor's sockets."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    async def by_udp(self, server: Server, query: Query, seconds: float) -> bytes:
        """The datagram that answers a query.  Raises Unanswered or Flooded."""
        protocol = _Datagrams(server, query)
        interface = "::" if ":" in server.address else ""
        try:
            port = self._reactor.listenUDP(0, protocol, interface=interface)
        except CannotListenError as error:
            raise Unanswered from error
        try:
            port.write(query.octets, (server.address, server.port))
            return await protocol.answered.addTimeout(seconds, self._reactor)
        except (OSError, TimeoutError) as error:
            raise Unanswered from error
        finally:
            port.stopListening()

    async def by_tcp(self, server: Server, query: Query) -> bytes:
        """The message that answers a query on a connection (RFC 7766).

        Raises Unanswered or Flooded.
        """
        kind = TCP6ClientEndpoint if ":" in server.address else TCP4ClientEndpoint
        endpoint = kind(self._reactor, server.address, server.port, TCP_TIMEOUT)
        protocol = _Stream(query)
        try:
            await connectProtocol(endpoint, protocol)
        except (ConnectError, OSError) as error:
            raise Unanswered from error
        except ConnectingCancelledError as error:
            raise CancelledError from error
        try:
            return await protocol.answered.addTimeout(TCP_TIMEOUT, self._reactor)
        except TimeoutError as error:
            raise Unanswered from error
        finally:
            protocol.transport.abortConnection()


class _Answer:
    """The first octets that fit a query, among what else comes."""

    def __init__(self, query: Query) -> None:
        self.answered: Deferred[bytes] = Deferred()
        self._query = query
        self._strays = 0

    def take(self, octets: bytes | None) -> None:
        """Look at a message; None: it comes from elsewhere."""
        if self.answered.called:
            return
        if octets is not None and self._query.fits(octets):
            self.answered.callback(octets)
            return
        self._strays += 1
        if self._strays == MAX_STRAYS:
            self.answered.errback(Failure(Flooded()))

    def fail(self) -> None:
        """Fail, for nothing more comes."""
        if not self.answered.called:
            self.answered.errback(Failure(Unanswered()))


class _Datagrams(DatagramProtocol):
    """The port that waits for the answer to one query."""

    noisy = False

    def __init__(self, server: Server, query: Query) -> None:
        self._server = ip_address(server.address), server.port
        self._answer = _Answer(query)
        self.answered = self._answer.answered

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        """Twisted calls this."""
        sender = ip_address(address[0]), address[1]
        self._answer.take(datagram if sender == self._server else None)


class _Stream(Int16StringReceiver):
    """A connection for one query."""

    transport: Any

    def __init__(self, query: Query) -> None:
        self._octets = query.octets
        self._answer = _Answer(query)
        self.answered = self._answer.answered

    def connectionMade(self) -> None:
        """Twisted calls this."""
        self.sendString(self._octets)

    def stringReceived(self, string: bytes) -> None:
        """Twisted calls this."""
        self._answer.take(string)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted calls this."""
        self._answer.fail()
