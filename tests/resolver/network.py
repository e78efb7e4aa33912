"""A network in memory with scripted name servers, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from dns.rcode import Rcode
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

# What a server sends back for the octets of a query that came by "udp" or "tcp".
Script = Callable[[bytes, str], Iterable[bytes]]


class Asked(NamedTuple):
    """A query that arrived."""

    server: str
    via: str
    query: dns.message.Message


class Network(Clock):
    """A reactor whose sockets lead to scripts; answers come at once, the clock is the test's."""

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[str, Script] = {}
        self.asked: list[Asked] = []
        self.hanging: set[str] = set()
        self.connections: list[Connection] = []
        self.open_ports = 0
        self.most_ports = 0

    def listenUDP(
        self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192
    ) -> _Port:
        """Our transport calls this."""
        assert port == 0
        return _Port(self, protocol, interface)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> None:
        """Twisted's endpoints call this; a connection to a hanging host never comes."""
        if host in self.hanging:
            factory.doStart()
            factory.startedConnecting(_Connector(factory))
            return
        if host not in self.servers:
            factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
            return
        kind = IPv6Address if ":" in host else IPv4Address
        protocol = factory.buildProtocol(kind("TCP", host, port))
        self.connections.append(Connection(self, protocol, host))
        protocol.makeConnection(self.connections[-1])

    def answers(self, server: str, octets: bytes, via: str) -> list[bytes]:
        """What a server sends."""
        self.asked.append(Asked(server, via, dns.message.from_wire(octets)))
        script = self.servers.get(server)
        return [] if script is None else list(script(octets, via))

    @property
    def vias(self) -> list[str]:
        """How the queries came, one after the other."""
        return [each.via for each in self.asked]


class _Port:
    """A socket for datagrams."""

    def __init__(self, network: Network, protocol: Any, interface: str) -> None:
        self._network = network
        self._protocol = protocol
        self._is_six = interface == "::"
        network.open_ports += 1
        network.most_ports = max(network.most_ports, network.open_ports)

    def write(self, octets: bytes, address: tuple[str, int]) -> None:
        """Send, and receive what comes back at once."""
        assert self._is_six == (":" in address[0])
        for datagram in self._network.answers(address[0], octets, "udp"):
            self._protocol.datagramReceived(datagram, address)

    def stopListening(self) -> Deferred[None]:
        """Close it, in a moment."""
        self._network.open_ports -= 1
        return Deferred()


class _Connector:
    """The wait for a connection."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def getDestination(self) -> str:
        """Whither it leads."""
        return "a host"

    def stopConnecting(self) -> None:
        """Wait no more."""
        self._factory.clientConnectionFailed(self, Failure(ConnectionAborted()))


class Connection:
    """A connection to a name server."""

    disconnecting = False
    is_open = True

    def __init__(self, network: Network, protocol: Any, server: str) -> None:
        self._network = network
        self._protocol = protocol
        self._server = server

    def write(self, octets: bytes) -> None:
        """Send one message, and receive what comes back at once."""
        assert int.from_bytes(octets[:2], "big") == len(octets) - 2
        for message in self._network.answers(self._server, octets[2:], "tcp"):
            self._protocol.dataReceived(len(message).to_bytes(2, "big") + message)

    def receive(self, octets: bytes) -> None:
        """The server sends some octets, if it still can."""
        if self.is_open:
            self._protocol.dataReceived(octets)

    def lose(self, reason: type[Exception] = ConnectionDone) -> None:
        """The server closes it."""
        if self.is_open:
            self.is_open = False
            self._protocol.connectionLost(Failure(reason()))

    def abortConnection(self) -> None:
        """Close it."""
        self.lose(ConnectionAborted)


def rrset(name: str, kind: str, *texts: str, ttl: int = 600) -> dns.rrset.RRset:
    """Records of one name and type, as a zone file has them."""
    made = dns.rrset.RRset(dns.name.from_text(name), 1, dns.rdatatype.from_text(kind))
    for text in texts:
        made.add(dns.rdata.from_text("IN", kind, text), ttl)
    return made


def soa(minimum: int, zone: str = "example.com", ttl: int = 86400) -> dns.rrset.RRset:
    """What comes with an answer that there is nothing."""
    return rrset(zone, "SOA", f"ns.{zone}. host.{zone}. 1 2 3 4 {minimum}", ttl=ttl)


def reply(
    octets: bytes,
    answer: Sequence[dns.rrset.RRset] = (),
    code: int = Rcode.NOERROR,
    authority: Sequence[dns.rrset.RRset] = (),
    flags: int = 0,
) -> dns.message.Message:
    """The reply to a query."""
    message = dns.message.make_response(dns.message.from_wire(octets), recursion_available=True)
    message.set_rcode(code)
    message.flags |= dns.flags.Flag(flags)
    message.answer = list(answer)
    message.authority = list(authority)
    return message


class Zone:
    """A script that answers from a table; what is not in it has no records.

    A value is a list of record sets, or the keyword arguments of `reply`.
    """

    def __init__(self) -> None:
        self.table: dict[tuple[str, str], Any] = {}
        self.flags = 0

    def add(self, name: str, kind: str, *texts: str, ttl: int = 600) -> None:
        """Let a name have these records."""
        self.table[name, kind] = [rrset(name, kind, text, ttl=ttl) for text in texts]

    def __call__(self, octets: bytes, via: str) -> Iterable[bytes]:
        """What is sent back."""
        question = dns.message.from_wire(octets).question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        known = self.table.get((name, dns.rdatatype.to_text(question.rdtype)), ())
        arguments = known if isinstance(known, dict) else {"answer": known}
        return [reply(octets, **{"flags": self.flags} | arguments).to_wire()]
