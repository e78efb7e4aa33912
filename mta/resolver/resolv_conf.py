"""The name servers to ask: those of the configuration, or of resolv.conf(5)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

DNS_PORT = 53
DEFAULT_TIMEOUTS = (1, 3, 5, 10)  # seconds for the first try and the next ones, of each server
DEFAULT_TIMEOUT = 5  # seconds, resolv.conf(5), where the file has `attempts` alone
DEFAULT_ATTEMPTS = 2  # resolv.conf(5), where the file has `timeout` alone
MAX_TIMEOUT = 30  # seconds, resolv.conf(5)
MAX_ATTEMPTS = 5  # resolv.conf(5)
CONTAINER_FORWARDER = "127.0.0.11"  # Docker's: on loopback, but it repeats what comes over a wire


@dataclass(frozen=True, slots=True)
class Server:
    """A name server; if it is trusted, its verdict on DNSSEC counts."""

    address: str
    port: int = DNS_PORT
    is_trusted: bool = False

    @classmethod
    def at(cls, address: str, port: int = DNS_PORT) -> Server:
        """The server at an address.  Raises ValueError where that is none."""
        parsed = ip_address(address)
        if parsed.is_unspecified:
            parsed = ip_address("::1" if parsed.version == 6 else "127.0.0.1")
        return cls(str(parsed), port)


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers, in the order to ask them.

    `timeouts`: seconds that each has at the first try and the next ones.  `rotated`: each question
    begins at another one.
    """

    servers: Sequence[Server]
    timeouts: Sequence[int] = DEFAULT_TIMEOUTS
    rotated: bool = False


class ConfiguredServers:
    """The servers of the configuration, as (address, port)."""

    def __init__(self, servers: Sequence[tuple[str, int]]) -> None:
        listed = [Server.at(address, port) for address, port in servers]
        self._servers = Servers(_with_trust(listed))

    def current(self) -> Servers:
        """The servers to ask now."""
        return self._servers


class SystemServers:
    """The servers of the system, from its file, which may change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._servers = parse_resolv_conf("")

    def current(self) -> Servers:
        """The servers to ask now: without a file, the last known ones."""
        try:
            status = self._path.stat()
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen != self._seen:
                self._servers = parse_resolv_conf(self._path.read_text("ascii", "replace"))
                self._seen = seen
        except OSError:
            self._seen = None
        return self._servers


def parse_resolv_conf(text: str) -> Servers:
    """Read what matters here of a file in the form of resolv.conf(5)."""
    addresses: list[str] = []
    options: dict[str, str] = {}
    for line in text.splitlines():
        keyword, *values = line.split() or [""]
        if keyword == "nameserver":
            addresses += values[:1]
        elif keyword == "options":
            options |= {
                name: number for name, _, number in (each.partition(":") for each in values)
            }
    servers = list(_servers(addresses)) or [Server.at("127.0.0.1")]
    servers = _with_trust(servers, "trust-ad" in options)
    return Servers(servers, _timeouts(options), "rotate" in options)


def _servers(addresses: Sequence[str]) -> Iterator[Server]:
    for address in addresses:
        try:
            yield Server.at(address)
        except ValueError:
            continue


def _with_trust(servers: Sequence[Server], are_trusted: bool = False) -> list[Server]:
    """The servers, trusted if all are on this host.

    No wire leads there.  With another one beside them, a stranger would only have to keep them
    busy, and their verdict would be gone.
    """
    local = all(
        ip_address(server.address).is_loopback and server.address != CONTAINER_FORWARDER
        for server in servers
    )
    return [replace(server, is_trusted=local or are_trusted) for server in servers]


def _timeouts(options: dict[str, str]) -> Sequence[int]:
    if not {"timeout", "attempts"} & options.keys():
        return DEFAULT_TIMEOUTS
    timeout = _number(options.get("timeout", ""), DEFAULT_TIMEOUT, MAX_TIMEOUT)
    return [timeout] * _number(options.get("attempts", ""), DEFAULT_ATTEMPTS, MAX_ATTEMPTS)


def _number(text: str, default: int, most: int) -> int:
    return min(max(int(text), 1), most) if re.fullmatch("[0-9]{1,4}", text) else default
