"""The unit of the server, and what systemd says of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mta.installation.changes import Desired, TextFile
from mta.installation.command import Command
from mta.installation.filling import filled
from mta.installation.interfaces import IChange, State
from mta.installation.places import Places

NAME = "mta.service"
UNIT = Path("/etc/systemd/system") / NAME
PACKAGED = (Path("/usr/lib/systemd/system") / NAME, Path("/lib/systemd/system") / NAME)
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
        return all(_says(word) for word in ("is-active", "is-enabled"))

    def unit(self, *, replaces: bool) -> Iterator[IChange]:
        """The changes that make the unit; none where a package brought one."""
        if any(self.places.now(path).exists() for path in PACKAGED):
            return
        desired = Desired(UNIT, system_unit(self.places), self.places.roots)
        unit = TextFile(self.places, desired, replaces=replaces)
        yield unit
        if self.is_running:
            is_new = unit.state() is State.NEEDED or _shown("NeedDaemonReload") == "yes"
            yield Command(["systemctl", "daemon-reload"], needed=is_new)

    def start(self, *, is_changed: bool) -> IChange:
        """The start of the server, now and at boot, or its reload.

        `is_changed`: the configuration will be another one.
        """
        if not self.has_server:
            return Command(["systemctl", "enable", "--now", NAME], needed=True)
        config = self.places.config
        is_newer = config.exists() and config.stat().st_mtime > _last_change()
        return Command(["systemctl", "reload", NAME], needed=is_changed or is_newer)


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


def _says(word: str) -> bool:
    return _asked(word, "--quiet", NAME).returncode == 0


def _shown(name: str) -> str:
    """A property of the unit."""
    return _asked("show", NAME, "--property", name, "--value", "--timestamp=unix").stdout.strip()


def _last_change() -> float:
    """The time when the server was started or reloaded last."""
    text = _shown("StateChangeTimestamp").removeprefix("@")
    return float(text) + 1 if text.isdigit() else 0.0  # it is cut to seconds


def _asked(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["systemctl", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
