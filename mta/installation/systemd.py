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
            is_new = unit.state() is State.NEEDED
            yield Command(["systemctl", "daemon-reload"], needed=is_new)

    def start(self) -> IChange:
        """The start of the server, now and at each boot."""
        return Command(["systemctl", "enable", "--now", NAME], needed=not self.has_server)

    def reload(self) -> IChange:
        """The reload of a server that runs."""
        return Command(["systemctl", "reload", NAME], needed=_says("is-active"))


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
    command = ["systemctl", word, "--quiet", NAME]
    ended = subprocess.run(command, check=False, capture_output=True)  # noqa: S603
    return ended.returncode == 0
