"""The sockets of systemd that stand for low ports of the configuration.

Few imports, since `mta check` begins at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mta.config.endpoints import PROXIED, tcp_address
from mta.settings import Listener

NAME = "mta.service"
SOCKET_NAME = "mta.socket"
_FOLDER = Path("/etc/systemd/system")
UNIT, SOCKET = _FOLDER / NAME, _FOLDER / SOCKET_NAME
PACKAGED = (Path("/usr/lib/systemd/system") / NAME, Path("/lib/systemd/system") / NAME)
FIRST_HIGH_PORT = 1024  # all users may open it, and those above
UNITS = (UNIT, *PACKAGED)  # where the unit of the server is looked for, the first one counts
_LOW_PORTS = "CAP_NET_BIND_SERVICE"  # with this right a server opens them itself
_START = re.compile(r"^ExecStart=(.*)$", re.MULTILINE)
_STREAM = re.compile(r"^ListenStream=(\S+)\s*$", re.MULTILINE)
_CONFIG = re.compile(r"--config[ =](\S+)")


def without_socket(
    config: Path,
    listeners: Sequence[Listener],
    units: Sequence[Path] = UNITS,
    socket: Path = SOCKET,
) -> Iterator[tuple[int, str]]:
    """The listeners, by number, whose port our unit can't open.

    Only where the unit runs the server with this configuration, and without the right to open low
    ports itself.  Each comes with what to say.  Blocks.
    """
    unit = next(filter(None, map(_text, units)), "")
    if not _runs(unit, config) or _LOW_PORTS in unit or "\nUser=root\n" in unit:
        return
    streams = set(_STREAM.findall(_text(socket)))
    for number, listener in enumerate(listeners):
        stream = stream_of(listener.endpoint)
        if stream and stream not in streams:
            yield number, f"{socket} has no socket for {listener.endpoint}: call `mta init` again"


def stream_of(endpoint: str) -> str:
    """An endpoint as systemd writes it; empty without a low port."""
    tcp = tcp_address(endpoint.removeprefix(PROXIED))
    if tcp is None or not 0 < tcp.port < FIRST_HIGH_PORT:
        return ""
    host = tcp.host or ("::" if tcp.is_ipv6 else "0.0.0.0")  # noqa: S104
    return f"[{host}]:{tcp.port}" if tcp.is_ipv6 else f"{host}:{tcp.port}"


def _runs(unit: str, config: Path) -> bool:
    """Tell whether a unit starts the server with a configuration."""
    with suppress(OSError):
        for command in _START.findall(unit):
            named = _CONFIG.search(command)
            if named is not None and Path(named[1]).resolve() == config.resolve():
                return True
    return False


def _text(path: Path) -> str:
    """The text of a unit; empty where there is none."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
