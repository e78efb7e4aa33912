"""The listeners: opened once, while low ports can be bound, and served by what is configured."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.config.endpoints import PROXIED
from mta.interfaces import IFirstRoles, IRole, ISessionMeter
from mta.link import Link, LinkFactory
from mta.proxy_protocol import ProxiedFactory
from mta.service import workers
from mta.service.configured import Configured
from mta.settings import Listener, Service
from mta.smtp.receiver import Receiver, Reception

BACKLOG = 1024  # connections that wait until we take them; any burst would fill Twisted's 50
SOCKET_MODE = "660"  # of UNIX sockets: not all local users are to hand us mail

_ADVICE = {
    errno.EADDRINUSE: "another program has it (ss -ltnp names it)",
    errno.EACCES: "ports below 1024 are for root, or for who has CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "no interface of this host has that address",
}


class CannotStart(Exception):
    """The server can't run so: one line for a person."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A listener that is open."""

    listener: Listener
    port: IListeningPort
    factory: LinkFactory
    stop: Callable[[], Any]


@implementer(IFirstRoles)
class Receivers:
    """The receivers of one listener, which are counted."""

    def __init__(self, reception: Reception, meter: ISessionMeter) -> None:
        self._reception = reception
        self._meter = meter

    def first_role(self) -> IRole:
        """See `IFirstRoles.first_role`."""
        self._meter.session(self._reception.service)
        return Receiver(self._reception)


class Listeners:
    """The open listeners.

    `inherited` are the descriptors of those that the first process opened, where we are a worker.
    """

    def __init__(self, reactor: Any, meter: ISessionMeter, inherited: Sequence[int]) -> None:
        self._reactor = reactor
        self._meter = meter
        self._inherited = inherited
        self._open: list[_Open] = []

    def open(self, listeners: Sequence[Listener]) -> None:
        """Open them; nobody is answered before the reactor runs.  Raises CannotStart."""
        for number, listener in enumerate(listeners):
            factory = LinkFactory(self._reactor)
            is_proxied = listener.endpoint.startswith(PROXIED)
            front = ProxiedFactory(factory, self._reactor) if is_proxied else factory
            if self._inherited:
                port = workers.adopt(self._reactor, self._inherited[number], front)
                stop = port.stopReading  # a socket's file is the first process's to remove
            else:
                port = listen(self._reactor, listener.endpoint, front)
                stop = port.stopListening
            self._open.append(_Open(listener, port, factory, stop))

    @property
    def ports(self) -> Sequence[IListeningPort]:
        """The ports, in the order of the configuration."""
        return [opened.port for opened in self._open]

    @property
    def sockets(self) -> Iterator[Path]:
        """The files of those that are UNIX sockets, and ours to open."""
        for opened in self._open:
            address = opened.port.getHost()
            if isinstance(address, UNIXAddress) and address.name and not self._inherited:
                yield Path(os.fsdecode(address.name))

    def described(self) -> Iterator[tuple[str, Listener]]:
        """Each listener, and its endpoint with the port that the system chose where it had to."""
        for opened in self._open:
            yield shown(opened.listener.endpoint, opened.port), opened.listener

    def serve(self, configured: Configured) -> None:
        """Serve connections that come from now on as it is configured."""
        for opened, reception in zip(self._open, configured.receptions, strict=True):
            opened.factory.serve(
                Receivers(reception, self._meter),
                configured.server_tls,
                record_per_line=reception.service is Service.ODMR,
            )

    async def close(self) -> Sequence[Link]:
        """Take no more connections; returns those that stand."""
        for opened in self._open:
            await maybeDeferred(opened.stop)
        return [link for opened in self._open for link in opened.factory.links]


def listen(reactor: Any, endpoint: str, factory: IProtocolFactory) -> IListeningPort:
    """Open a listener at once.  Raises CannotStart."""
    results: list[Any] = []
    try:
        listening = serverFromString(reactor, _complete(endpoint)).listen(factory)
    except (ValueError, TypeError, LookupError, OSError) as error:
        raise CannotStart(f"cannot listen on {endpoint}: {_reason(endpoint, error)}") from None
    listening.addBoth(results.append)
    if not results:
        raise CannotStart(f"cannot listen on {endpoint}: not ready at once")
    if isinstance(results[0], Failure):
        reason = _reason(endpoint, results[0].value)
        raise CannotStart(f"cannot listen on {endpoint}: {reason}")
    port: IListeningPort = results[0]
    return port


def _complete(endpoint: str) -> str:
    """An endpoint string with what Twisted would choose otherwise than we do."""
    description = endpoint.removeprefix(PROXIED)
    if description.startswith("tcp") and ":backlog=" not in description:
        return f"{description}:backlog={BACKLOG}"
    if description.startswith("unix:") and ":mode=" not in description:
        return f"{description}:mode={SOCKET_MODE}"
    return description


def _reason(endpoint: str, error: BaseException | None) -> str:
    if endpoint.removeprefix(PROXIED).startswith("systemd:"):
        return "systemd passed no such socket; is there a .socket unit of it?"
    cause = error.socketError if isinstance(error, CannotListenError) else error
    if not isinstance(cause, OSError):
        return str(cause)
    reason = cause.strerror or str(cause)
    if endpoint.startswith("unix:"):
        if cause.errno == errno.EADDRINUSE:
            return f"{reason}; another program listens there, or left that file: remove it then"
        return f"{reason}; its folder must be there, and one that we may write to"
    advice = _ADVICE.get(cause.errno or 0)
    return f"{reason}; {advice}" if advice else reason


def shown(endpoint: str, port: IListeningPort) -> str:
    """An endpoint string, with the port that the system chose where it had to."""
    address = port.getHost()
    if isinstance(address, (IPv4Address, IPv6Address)):
        return re.sub(r"(?<=tcp:|cp6:)0\b", str(address.port), endpoint)
    return endpoint
