"""A trial of the listeners' addresses, while no server has them."""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mta.config.endpoints import PROXIED, TCPAddress, tcp_address
from mta.service.findings.endpoints import endpoints_of, socket_path
from mta.service.findings.finding import Finding
from mta.settings import Settings
from mta.spool import inspection

_MISSING = "no interface of this host has that address"


def unusable_addresses(settings: Settings) -> Iterator[Finding]:
    """Endpoints that the server would not get now.  Binds each for a moment."""
    if inspection.is_in_use(Path(settings.spool)):
        return
    seen: Counter[str] = Counter()
    for keys, endpoint in endpoints_of(settings):
        tcp = tcp_address(endpoint.removeprefix(PROXIED))
        path = socket_path(endpoint)
        if (tcp and tcp.port) or path:
            seen[endpoint] += 1
        reason = _why_not(tcp) if tcp else _why_no_socket(path) if path else ""
        if seen[endpoint] > 1:
            yield Finding(keys, f"{endpoint}: another listener here has it, too", True)
        elif reason:
            yield Finding(keys, f"{endpoint}: {reason}")


def _why_not(tcp: TCPAddress) -> str:
    """The reason why the server can't have a port; empty: it can."""
    family = socket.AF_INET6 if tcp.is_ipv6 else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((tcp.host, tcp.port))
            trial.listen(1)
        except socket.gaierror as error:
            return error.strerror or str(error)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "another program has this port (ss -ltnp names it)"
            return _MISSING if error.errno == errno.EADDRNOTAVAIL else ""
    return ""


def _why_no_socket(path: Path) -> str:
    """The reason why it can't have a UNIX socket; empty: it can."""
    if not path.is_socket():
        return ""
    with socket.socket(socket.AF_UNIX) as trial:
        try:
            trial.connect(os.fspath(path))
        except ConnectionRefusedError:
            # A process of ours left a lock as well: then the next one replaces the file.
            is_ours = path.with_name(f"{path.name}.lock").is_symlink()
            return "" if is_ours else f"no program listens there any more: rm {path}"
        except OSError:
            return ""
    return "another program listens there (ss -lxp names it)"
