"""The PROXY protocol, versions 1 and 2: a proxy names its client.

`twisted.protocols.haproxy` greets before it knows the client's address, and TLS can't begin behind
it: so we read the header ourselves.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv6Address as IPv6
from ipaddress import ip_address
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from mta.session import LOCAL_ADDRESS, UNKNOWN_ADDRESS

HEADER_TIMEOUT = 10.0  # seconds: a proxy sends the header with the connection
MAX_OCTETS = 2048  # of a header of version 2: addresses, and more TLVs than any proxy sends
MAX_PORT = 65535  # RFC 9293 section 3.1
MAX_TEXT = 107  # octets of a header of version 1, with CRLF, as the protocol says

_TEXT = re.compile(
    rb"PROXY (?:UNKNOWN[^\r\n]*|TCP[46] ([0-9A-Fa-f:.]+) [^\r\n ]+ ([0-9]{1,5}) [0-9]{1,5})"
)
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16  # octets of a header of version 2 before its addresses
_LOCAL, _PROXY = 0x20, 0x21  # version 2; what the connection is for
_UNSPECIFIED, _TCP4, _TCP6 = 0x00, 0x11, 0x21  # families


class Client(NamedTuple):
    """The client that a proxy names.

    The address is empty where the proxy does not tell it, or speaks for itself.
    """

    address: str = ""
    port: int = 0


def client_of(octets: bytes) -> tuple[Client, bytes] | None:
    """The client, and the octets behind the header.

    None: the header is not complete.  Raises ValueError where this is no header.
    """
    if octets.startswith(_SIGNATURE[: len(octets)]):
        return _binary(octets)
    if not octets.startswith(b"PROXY "[: len(octets)]):
        raise ValueError("no PROXY header")
    end = octets.find(b"\r\n", 0, MAX_TEXT)
    if end < 0:
        if len(octets) >= MAX_TEXT:
            raise ValueError("an endless PROXY header")
        return None
    found = _TEXT.fullmatch(octets[:end])
    if found is None:
        raise ValueError("a malformed PROXY header")
    client = Client()
    if found[1]:
        client = Client(str(ip_address(found[1].decode("ascii"))), int(found[2]))
        if client.port > MAX_PORT:
            raise ValueError("a PROXY header with no port")
    return client, octets[end + 2 :]


def _binary(octets: bytes) -> tuple[Client, bytes] | None:
    if len(octets) < _FIXED:
        return None
    purpose, family, size = octets[12], octets[13], int.from_bytes(octets[14:_FIXED])
    if purpose not in (_LOCAL, _PROXY) or size > MAX_OCTETS:
        raise ValueError("a malformed PROXY header")
    if len(octets) < _FIXED + size:
        return None
    rest = octets[_FIXED + size :]
    if purpose == _LOCAL or family == _UNSPECIFIED:
        return Client(), rest
    if family == _TCP4 and size >= 12:
        port = int.from_bytes(octets[_FIXED + 8 : _FIXED + 10])
        return Client(str(IPv4(octets[_FIXED : _FIXED + 4])), port), rest
    if family == _TCP6 and size >= 36:
        port = int.from_bytes(octets[_FIXED + 32 : _FIXED + 34])
        return Client(str(IPv6(octets[_FIXED : _FIXED + 16])), port), rest
    raise ValueError("a PROXY header for no TCP connection")


class _HeaderReader(Protocol):
    """Reads the header, then gives the connection to the client's protocol."""

    log = Logger()
    transport: Any  # its `protocol` is what Twisted hands input to

    def __init__(self, factory: IProtocolFactory, clock: IReactorTime) -> None:
        self._factory = factory
        self._clock = clock
        self._octets = b""
        self._alarm: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Twisted calls this when the connection stands."""
        self._alarm = self._clock.callLater(HEADER_TIMEOUT, self._refuse, "no PROXY header")

    def dataReceived(self, data: bytes) -> None:
        """Twisted calls this with what arrived."""
        self._octets += data
        try:
            found = client_of(self._octets)
        except ValueError as error:
            self._refuse(str(error))
            return
        if found is not None:
            self._stop_waiting()
            self._start_client(*found)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted calls this when the connection is gone."""
        self._stop_waiting()

    def _start_client(self, client: Client, rest: bytes) -> None:
        transport = self.transport
        protocol = self._factory.buildProtocol(_address(client))
        if protocol is None:
            transport.abortConnection()
            return
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if rest:
            transport.protocol.dataReceived(rest)  # by now it may be TLS

    def _refuse(self, reason: str) -> None:
        proxy = getattr(self.transport.getPeer(), "host", LOCAL_ADDRESS)
        self.log.warn("{proxy} is no proxy: {reason}", proxy=proxy, reason=reason)
        self._stop_waiting()
        self.transport.abortConnection()

    def _stop_waiting(self) -> None:
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()


def _address(client: Client) -> IAddress:
    kind = IPv6Address if ":" in client.address else IPv4Address
    return kind("TCP", client.address or UNKNOWN_ADDRESS, client.port)


class ProxiedFactory(ServerFactory):
    """Reads a header before each connection of another factory."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, clock: IReactorTime) -> None:
        self._factory = factory
        self._clock = clock

    def buildProtocol(self, address: IAddress | None) -> Protocol:
        """Twisted calls this for each connection."""
        return _HeaderReader(self._factory, self._clock)
