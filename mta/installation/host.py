"""This host: its name, its networks, and programs on our ports.

All of it blocks, for some seconds where a name server or a firewall does not answer.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
GLOBAL_SCOPE = "00"  # of an address in /proc/net/if_inet6
LISTENING = "0A"  # state of a socket in /proc/net/tcp
SYSTEMD = "systemd"  # which opens sockets for others
SERVER_PROGRAM = "twistd"  # the server of ours
# Addresses that are never reached: the system only tells which of ours it would take.
_ABROAD = {socket.AF_INET: "192.88.99.1", socket.AF_INET6: "2001:4860::1"}


@dataclass(frozen=True, slots=True)
class Host:
    """This host, as its system tells."""

    proc: Path = PROC

    @property
    def has_ipv6(self) -> bool:
        """True where an interface has a global address of IPv6."""
        with suppress(OSError):
            lines = (self.proc / "net/if_inet6").read_text().splitlines()
            return any(line.split()[3:4] == [GLOBAL_SCOPE] for line in lines)
        return False

    @property
    def separates_families(self) -> bool:
        """True where a socket of IPv6 takes no connections of IPv4."""
        with suppress(OSError):
            return (self.proc / "sys/net/ipv6/bindv6only").read_text().strip() == "1"
        return False

    def holders(self, ports: Collection[int]) -> Mapping[int, str]:
        """The programs of others that listen on some ports, by the ports."""
        sockets = dict(self._listening(ports))
        if not sockets:
            return {}
        names: dict[str, set[str]] = {}
        for inode, name in self._processes(set(sockets)):
            names.setdefault(inode, set()).add(name)
        found = {port: names.get(inode, {"another program"}) for inode, port in sockets.items()}
        # systemd has a socket beside the server that it has opened it for.
        return {
            port: min(held - {SYSTEMD} or held)
            for port, held in found.items()
            if not held & {"", "mta.service"}
        }

    def in_the_way(self, ports: Collection[int], *, sockets: bool) -> list[str]:
        """A line for each program that listens where our server is to.

        `sockets`: systemd has some for our server.
        """
        by_name: dict[str, list[int]] = {}
        for port, name in self.holders(ports).items():
            if not (sockets and name == SYSTEMD):
                by_name.setdefault(name, []).append(port)
        return [
            f"{name} listens on port {', '.join(map(str, sorted(held)))}: the server can't start"
            f" before it ends{_ending(name)}"
            for name, held in sorted(by_name.items())
        ]

    def _listening(self, ports: Collection[int]) -> Iterator[tuple[str, int]]:
        """The inodes of listening sockets, with their ports."""
        for file in ("net/tcp", "net/tcp6"):
            with suppress(OSError):
                for line in (self.proc / file).read_text().splitlines()[1:]:
                    fields = line.split()
                    port = int(fields[1].rpartition(":")[2], 16)
                    if fields[3] == LISTENING and port in ports:
                        yield fields[9], port

    def _processes(self, inodes: Collection[str]) -> Iterator[tuple[str, str]]:
        """The inodes of sockets, with the names of those that have them."""
        for process in self.proc.glob("[0-9]*"):
            with suppress(OSError):
                for descriptor in (process / "fd").iterdir():
                    with suppress(OSError):
                        link = str(descriptor.readlink())
                        inode = link.removeprefix("socket:[").removesuffix("]")
                        if inode in inodes:
                            yield inode, _name(process)


def _ending(name: str) -> str:
    """The command that ends another program, where it is a unit."""
    unit = name.removesuffix(".service")
    return f" (systemctl disable --now {unit})" if unit != name else ""


def _name(process: Path) -> str:
    """The unit or program of a process; empty for our server."""
    command = (process / "cmdline").read_bytes().split(b"\0")
    if b"mta" in command and any(SERVER_PROGRAM.encode() in word for word in command):
        return ""
    unit = re.search(r"([^/\n]+\.service)$", (process / "cgroup").read_text(), re.MULTILINE)
    return unit[1] if unit else (process / "comm").read_text().strip()


def outward_addresses() -> list[str]:
    """The addresses that this host has towards the Internet, one each family."""
    found = []
    for family, abroad in _ABROAD.items():
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((abroad, 9))
            found.append(probe.getsockname()[0])
    return found


def own_name() -> str:
    """The full name that this host calls itself; empty without one."""
    name = socket.getfqdn().rstrip(".").lower()
    return name if "." in name and not name.startswith("localhost") else ""
