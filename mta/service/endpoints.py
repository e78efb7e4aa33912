"""Listening on endpoint strings, and the reasons why that fails."""

from __future__ import annotations

import errno
import os
import re
import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

from mta.config.endpoints import PROXIED

BACKLOG = 1024  # connections that wait until we take them; a burst would fill Twisted's 50
SOCKET_MODE = "660"  # of UNIX sockets: not all users of this host may hand us mail

_ADVICE = {
    errno.EADDRINUSE: "another program has it (ss -ltnp names it)",
    errno.EACCES: "root or systemd opens ports below 1024: `mta init` again writes mta.socket anew",
    errno.EADDRNOTAVAIL: "no interface of this host has that address",
}


class CannotStart(Exception):
    """The server can't run so: one line for the operator."""


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


def adopt(reactor: Any, descriptor: int, factory: IProtocolFactory) -> Any:
    """Listen on a socket that is open already; returns its port.  Raises OSError."""
    os.set_blocking(descriptor, False)  # systemd leaves it as it was made, and Twisted, too
    with socket.socket(fileno=descriptor) as inherited:
        return reactor.adoptStreamPort(descriptor, inherited.family, factory)


def shown(endpoint: str, port: IListeningPort) -> str:
    """An endpoint string, with the port that the system chose for 0."""
    address = port.getHost()
    if isinstance(address, (IPv4Address, IPv6Address)):
        return re.sub(r"(?<=tcp:|cp6:)0\b", str(address.port), endpoint)
    return endpoint


def _complete(endpoint: str) -> str:
    """An endpoint string with our choices where Twisted has others."""
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
