"""The sockets that systemd has opened for our listeners, see sd_listen_fds(3).

The configuration goes on saying ``tcp:25``: a socket is a listener's that has its address and
port.  So the server needs no right to open low ports, and clients wait while it restarts.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from mta.config.endpoints import PROXIED, tcp_address

FIRST = 3  # the descriptor of the first one, sd_listen_fds(3)
ENVIRON = Path("/proc/self/environ")  # the environment as the process was started with

Place = tuple[IPv4Address | IPv6Address, int]  # where a socket listens


class PassedSockets:
    """The listening TCP sockets that no listener has taken yet."""

    def __init__(self, descriptors: Iterable[int] = ()) -> None:
        self._by_place = {
            place: number for number in descriptors if (place := _place_of_socket(number))
        }

    def take(self, endpoint: str) -> int | None:
        """Return the descriptor for an endpoint, if there is one."""
        place = _place_of_endpoint(endpoint)
        return None if place is None else self._by_place.pop(place, None)

    @property
    def left(self) -> list[str]:
        """The places, for people, of those that no listener has taken."""
        return [
            f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
            for address, port in self._by_place
        ]


def passed_descriptors(environ: Path = ENVIRON) -> Iterable[int]:
    """Return the descriptors that systemd has passed to this process.

    Twisted removes what says so from `os.environ`, for endpoints ``systemd:``.
    """
    try:
        pairs = dict(line.partition(b"=")[::2] for line in environ.read_bytes().split(b"\0"))
    except OSError:  # another kind of system
        return ()
    count = pairs.get(b"LISTEN_FDS", b"")
    if pairs.get(b"LISTEN_PID") != str(os.getpid()).encode() or not count.isdigit():
        return ()
    return range(FIRST, FIRST + int(count))


def _place_of_socket(descriptor: int) -> Place | None:
    """The place of a listening TCP socket; None for other descriptors."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as passed:
            if passed.type != socket.SOCK_STREAM or passed.family == socket.AF_UNIX:
                return None
            host, port, *_ = passed.getsockname()
            return ip_address(host), port
    except (OSError, ValueError):
        return None


def _place_of_endpoint(endpoint: str) -> Place | None:
    """The place of a TCP endpoint; None where none is fixed."""
    tcp = tcp_address(endpoint.removeprefix(PROXIED))
    if tcp is None or not tcp.port:
        return None
    try:
        return ip_address(tcp.host or ("::" if tcp.is_ipv6 else "0.0.0.0")), tcp.port  # noqa: S104
    except ValueError:  # a name
        return None
