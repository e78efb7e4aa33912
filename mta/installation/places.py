"""The files and folders of an installation, and who owns them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mta.settings import Settings

SERVER = "mta"  # user and group of a server that root installs
SYSTEM_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Owner:
    """The user and group of a file by name; empty: the caller's."""

    user: str = ""
    group: str = ""

    def __str__(self) -> str:
        return f"{self.user}:{self.group}, " if self.user else ""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The users and groups of the system below `root`."""

    root: Path

    def ids(self, owner: Owner) -> tuple[int, int] | None:
        """The numbers of an owner; None: the files stay the caller's.

        They do where the caller is not root, and where the system has no such user.
        """
        if not owner.user or os.geteuid() != 0:
            return None
        user, group = self._number("passwd", owner.user), self._number("group", owner.group)
        return None if user is None or group is None else (user, group)

    def has_user(self, name: str) -> bool:
        """Tell whether there is a user of that name."""
        return self._number("passwd", name) is not None

    def has_group(self, name: str) -> bool:
        """Tell whether there is a group of that name."""
        return self._number("group", name) is not None

    @property
    def can_be_made(self) -> bool:
        """True for a system, with a file that users stand in."""
        return (self.root / "etc/passwd").exists()

    def _number(self, file: str, name: str) -> int | None:
        try:
            lines = (self.root / "etc" / file).read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return None
        for line in lines:
            found, _, number, *_ = (*line.split(":"), "", "", "")
            if found == name and number.isdigit():
                return int(number)
        return None


@dataclass(frozen=True, slots=True)
class Places:
    """The paths of an installation, as the installed server sees them.

    `root` is where they are now: ``/``, or the folder that a system is built in.  `user` runs the
    server; empty: the caller does.  `is_system` tells whether it is one for the whole host.
    """

    etc: Path
    state: Path
    spool: Path
    mail: Path
    program: Path
    user: str = ""
    root: Path = SYSTEM_ROOT
    is_system: bool = False

    @classmethod
    def of_system(cls, program: Path, root: Path = SYSTEM_ROOT) -> Places:
        """The paths of a server for the whole host."""
        return cls(
            etc=Path("/etc/mta"),
            state=Path("/var/lib/mta"),
            spool=Path("/var/spool/mta"),
            mail=Path("/var/mail"),
            program=program,
            user=SERVER,
            root=root,
            is_system=True,
        )

    @classmethod
    def of_home(cls, program: Path, environ: Mapping[str, str]) -> Places:
        """The paths of a server below a home folder (XDG base directories)."""
        home = Path(environ.get("HOME") or Path.home())
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share") / "mta"
        return cls(config / "mta", data, data / "spool", data / "mail", program)

    @classmethod
    def of_folder(cls, program: Path, folder: Path) -> Places:
        """The paths of a server that has all in one folder."""
        return cls(folder, folder, folder / "spool", folder / "mail", program)

    def used_by(self, settings: Settings | None) -> Places:
        """The same with the spool and the user of a configuration."""
        if settings is None or not self.is_this_host:
            return self
        user = settings.run_as if self.user and settings.run_as else self.user
        return replace(self, spool=Path(settings.spool), user=user)

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.etc / "mta.yaml"

    @property
    def users(self) -> Path:
        """The users file."""
        return self.etc / "users.yaml"

    @property
    def is_this_host(self) -> bool:
        """True for an installation on the host that runs us."""
        return self.root == SYSTEM_ROOT

    @property
    def accounts(self) -> Accounts:
        """The users and groups of that system."""
        return Accounts(self.root)

    @property
    def servers(self) -> Owner:
        """The owner of what the server writes."""
        return Owner(self.user, self.user)

    @property
    def shown_to_server(self) -> Owner:
        """The owner of what the server only reads."""
        return Owner("root", self.user) if self.user else Owner()

    @property
    def roots(self) -> Owner:
        """The owner of what is part of the system."""
        return Owner("root", "root") if self.is_system else Owner()

    def now(self, path: Path) -> Path:
        """The present path of what the installed server finds at `path`."""
        return path if self.is_this_host else self.root / path.relative_to("/")
