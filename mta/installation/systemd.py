"""The units of the server, and what systemd says of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mta.installation.changes import Desired, TextFile
from mta.installation.command import Command
from mta.installation.filling import filled
from mta.installation.interfaces import IChange, State
from mta.installation.places import Places
from mta.installation.sockets import NAME, PACKAGED, SOCKET, SOCKET_NAME, UNIT, stream_of
from mta.settings import Listener

RUNNING = Path("/run/systemd/system")  # see sd_booted(3)


@dataclass(frozen=True, slots=True)
class Systemd:
    """The systemd of the host that the server is installed on."""

    places: Places

    @property
    def is_running(self) -> bool:
        """True where it runs, and on the host that we install on."""
        return self.places.is_system and self.places.is_this_host and RUNNING.is_dir()

    @property
    def has_server(self) -> bool:
        """True where the server runs, and will after the next boot."""
        return all(_says(word, NAME) for word in ("is-active", "is-enabled"))

    @property
    def has_sockets(self) -> bool:
        """True where systemd has opened the low ports of the server."""
        return self.is_running and _says("is-active", SOCKET_NAME)

    def units(self, listeners: Sequence[Listener], *, replaces: bool) -> Iterator[IChange]:
        """The changes that make the units which no package brought."""
        units = [self._socket(listeners, replaces=replaces)]
        if not any(self.places.now(path).exists() for path in PACKAGED):
            units.append(self._file(UNIT, system_unit(self.places), replaces=replaces))
        made = [unit for unit in units if unit is not None]
        yield from made
        if self.is_running:
            is_new = any(unit.state() is State.NEEDED for unit in made)
            is_old = "yes" in (_shown("NeedDaemonReload"), _shown("NeedDaemonReload", SOCKET_NAME))
            yield Command(["systemctl", "daemon-reload"], needed=is_new or is_old)

    def start(self, listeners: Sequence[Listener], *, is_changed: bool) -> Iterator[IChange]:
        """The start of the server, now and at boot, or its reload.

        `is_changed`: the configuration will be another one.  Other sockets take a restart: those
        of before stay open under a server that failed.
        """
        yield Command(["systemctl", "enable", NAME], needed=not _says("is-enabled", NAME))
        socket = self._socket(listeners, replaces=False)
        units = [NAME] if socket is None else [SOCKET_NAME, NAME]
        is_new = socket is not None and (socket.state() is State.NEEDED or not self.has_sockets)
        if is_new or not _says("is-active", NAME):
            yield Command(["systemctl", "restart", *units], needed=True)
            return
        config = self.places.config
        is_newer = config.exists() and config.stat().st_mtime > _last_change()
        yield Command(["systemctl", "reload", NAME], needed=is_changed or is_newer)

    def _socket(self, listeners: Sequence[Listener], *, replaces: bool) -> IChange | None:
        """The unit of the low ports; None where there are none."""
        text = socket_unit(self.places, listeners)
        return self._file(SOCKET, text, replaces=replaces) if text else None

    def _file(self, path: Path, text: str, *, replaces: bool) -> IChange:
        desired = Desired(path, text, self.places.roots)
        return TextFile(self.places, desired, replaces=replaces)


def socket_unit(places: Places, listeners: Sequence[Listener]) -> str:
    """Return the text of the low ports' unit, if there are any."""
    streams = [stream for each in listeners if (stream := stream_of(each.endpoint))]
    if not streams:
        return ""
    lines = "\n".join(f"ListenStream={stream}" for stream in dict.fromkeys(streams))
    return filled("mta.socket", CONFIG=str(places.config), LISTEN=lines)


def system_unit(places: Places) -> str:
    """Return the text of the unit of a whole host."""
    return filled(
        "mta.service",
        PROGRAM=str(places.program),
        CONFIG=str(places.config),
        SPOOL=str(places.spool),
        MAIL=str(places.mail),
        USER=places.user,
    )


def user_unit(places: Places) -> str:
    """Return the text of the unit of one user."""
    return filled(
        "user.service",
        PROGRAM=str(places.program),
        CONFIG=str(places.config),
        STATE=str(places.state),
    )


def _says(word: str, unit: str) -> bool:
    return _asked(word, "--quiet", unit).returncode == 0


def _shown(name: str, unit: str = NAME) -> str:
    """A property of a unit."""
    return _asked("show", unit, "--property", name, "--value", "--timestamp=unix").stdout.strip()


def _last_change() -> float:
    """The time when the server was started or reloaded last."""
    text = _shown("StateChangeTimestamp").removeprefix("@")
    return float(text) + 1 if text.isdigit() else 0.0  # it is cut to seconds


def _asked(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["systemctl", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
