"""The way to a filter: ``inet:HOST:PORT`` or ``unix:PATH``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory

from mta.mail import is_address
from mta.milters.connection import FilterConnection
from mta.milters.packets import FilterFailure


class _Connections(Factory):
    """Makes connections to a filter."""

    noisy = False

    def __init__(self, clock: Any) -> None:
        self._clock = clock

    def buildProtocol(self, address: IAddress | None) -> FilterConnection:
        """Twisted calls this for each connection."""
        return FilterConnection(self._clock)


def endpoint(reactor: Any, socket: str, seconds: float) -> IStreamClientEndpoint:
    """The endpoint of a filter.  To connect takes at most so many seconds."""
    kind, _, place = socket.partition(":")
    if kind == "unix":
        return UNIXClientEndpoint(reactor, place, seconds)
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    if not is_address(host):
        return HostnameEndpoint(reactor, host, int(port), seconds)
    tcp = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
    return tcp(reactor, host, int(port), seconds)


async def connect(reactor: Any, socket: str, seconds: float) -> FilterConnection:
    """Connect to a filter.  Raises FilterFailure."""
    connecting: Deferred[Any] = endpoint(reactor, socket, seconds).connect(_Connections(reactor))
    try:
        connection: FilterConnection = await connecting
    except (ConnectError, DNSLookupError, OSError) as error:  # OSError: there is no socket for it
        raise FilterFailure(f"it can't be reached: {error}") from None
    return connection
