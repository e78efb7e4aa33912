"""Dovecot beside the server: IMAP for the Maildirs, and the users."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mta.installation.changes import Desired, TextFile, record_of
from mta.installation.command import Command
from mta.installation.filling import filled
from mta.installation.interfaces import ChangeFailed, IChange
from mta.installation.places import Owner, Places
from mta.installation.systemd import Systemd

MAIN = Path("/etc/dovecot/dovecot.conf")
OURS = Path("/etc/dovecot/conf.d/99-mta.conf")
SYSTEM_USERS = Path("/etc/dovecot/conf.d/10-auth.conf")  # lets the users of the host log in
USERS = Path("/etc/dovecot/mta-users")
SOCKET = Path("/run/dovecot/auth-client")

_NEW_FORM = re.compile(r"^dovecot_config_version\s*=", re.MULTILINE)  # of Dovecot 2.4
_INCLUDES_SYSTEM = re.compile(r"^!include auth-system\.conf\.ext", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Dovecot:
    """The Dovecot of a system, by its configuration."""

    places: Places

    @property
    def is_installed(self) -> bool:
        """True where its configuration is there."""
        return self.places.now(MAIN).exists()

    @property
    def is_untouched(self) -> bool:
        """True where it is as the package, or we, left it."""
        path = self.places.now(SYSTEM_USERS)
        is_ours = record_of(self.places).knows(OURS)
        return is_ours or (path.exists() and bool(_INCLUDES_SYSTEM.search(path.read_text())))

    def changes(self, systemd: Systemd, *, replaces: bool) -> Iterator[IChange]:
        """The changes that make it serve the Maildirs.  Raises ChangeFailed."""
        if not self.is_installed:
            raise ChangeFailed("Dovecot is not installed: apt install dovecot-imapd, then again")
        is_new = _NEW_FORM.search(self.places.now(MAIN).read_text())
        text = filled(
            f"dovecot-{'2.4' if is_new else '2.3'}.conf",
            MAIL=str(self.places.mail),
            USER=self.places.user,
            DOVECOT_USERS=str(USERS),
        )
        owner = Owner("root", "root")
        yield TextFile(self.places, Desired(OURS, text, owner), replaces=replaces)
        path = self.places.now(SYSTEM_USERS)
        if path.exists():
            before = path.read_text()
            after = _INCLUDES_SYSTEM.sub(r"#\g<0>", before)
            desired = Desired(SYSTEM_USERS, after, owner, stat.S_IMODE(path.stat().st_mode))
            # Once it was changed, another form of it is a person's choice.
            is_first = not record_of(self.places).knows(SYSTEM_USERS)
            yield TextFile(self.places, desired, replaces=replaces or is_first)
        if systemd.is_running:
            yield Command(["systemctl", "restart", "dovecot"], needed=not self._lets_us_in())

    def _lets_us_in(self) -> bool:
        """Tell whether it lets our user ask for passwords."""
        ids = self.places.accounts.ids(self.places.servers)
        return SOCKET.exists() and ids is not None and SOCKET.stat().st_uid == ids[0]
