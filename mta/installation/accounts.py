"""The server's own user, and the users of the mail server."""

from __future__ import annotations

import secrets
import string
from base64 import b64encode
from collections.abc import Collection, Sequence
from pathlib import Path

from zope.interface import implementer

from mta.files import atomic_write
from mta.installation.command import run
from mta.installation.interfaces import ChangeFailed, IChange, IUsers, State
from mta.installation.places import Owner, Places
from mta.smtp.sasl.scram import scram_keys

PASSWORD_GROUPS = 4  # of five characters each: 100 bits, which no search finds
PASSWORD_CHARACTERS = "".join(
    character for character in string.ascii_lowercase + string.digits if character not in "l1o0"
)
ITERATIONS = 4096  # of SCRAM (RFC 7677 section 4); more is for passwords that people choose
NO_SHELL = "/usr/sbin/nologin"
SALT_SIZE = 16  # octets
DOVECOT = Owner("root", "dovecot")  # its processes that ask for passwords are in this group


@implementer(IChange)
class ServerAccount:
    """The user and group that the server runs as."""

    def __init__(self, places: Places) -> None:
        self.title = f"user and group {places.user}"
        self._places = places

    def state(self) -> State:
        """See `IChange.state`."""
        accounts = self._places.accounts
        if accounts.has_user(self._places.user):
            return State.DONE
        return State.NEEDED if accounts.can_be_made else State.KEPT

    def difference(self) -> Sequence[str]:
        """See `IChange.difference`."""
        if self.state() is State.KEPT:
            root = self._places.root
            return [f"no {self.title}: {root}/etc/passwd is not there; all files stay yours"]
        return [f"new {self.title}"]

    def apply(self) -> str:
        """See `IChange.apply`."""
        where = [] if self._places.is_this_host else ["--prefix", str(self._places.root)]
        name = self._places.user
        command = ["useradd", *where, "--system", "--no-create-home", "--shell", NO_SHELL]
        has_group = self._places.accounts.has_group(name)
        command += ["--gid", name] if has_group else ["--user-group"]
        run([*command, "--home-dir", str(self._places.spool), name])
        return f"made {self.title}"


@implementer(IChange)
class LogIn:
    """A user of the mail server, with a new password.

    The password is shown once, when the user is made.
    """

    def __init__(self, users: IUsers, name: str, addresses: Sequence[str]) -> None:
        self.title = f"user {name}"
        self._users = users
        self._name = name
        self._addresses = addresses

    def state(self) -> State:
        """See `IChange.state`."""
        return State.DONE if self._name.lower() in self._users.names() else State.NEEDED

    def difference(self) -> Sequence[str]:
        """See `IChange.difference`."""
        return [f"new {self.title} with a password, for {', '.join(self._addresses)}"]

    def apply(self) -> str:
        """See `IChange.apply`."""
        password = new_password()
        self._users.add(self._name, password, self._addresses)
        return f"made {self.title}, password: {password} (shown only now)"


def new_password() -> str:
    """A password that can be read out."""
    groups = (
        "".join(secrets.choice(PASSWORD_CHARACTERS) for _ in range(5))
        for _ in range(PASSWORD_GROUPS)
    )
    return "-".join(groups)


@implementer(IUsers)
class ServerUsers:
    """The users in the file of the mail server's own."""

    def __init__(self, places: Places) -> None:
        self._path = places.now(places.users)
        self._places = places

    def names(self) -> Collection[str]:
        """See `IUsers.names`."""
        from mta.users.file import UserFault, UserFile

        try:
            return UserFile(self._path).load().users.keys()
        except UserFault as fault:
            raise ChangeFailed(str(fault)) from None

    def add(self, name: str, password: str, addresses: Sequence[str]) -> None:
        """See `IUsers.add`."""
        from mta.users.file import UserFault, UserFile

        owner = self._places.accounts.ids(self._places.servers)
        try:
            UserFile(self._path, owner).add(name, password, addresses)
        except UserFault as fault:
            raise ChangeFailed(str(fault)) from None


@implementer(IUsers)
class DovecotUsers:
    """The users in a passwd-file of Dovecot's, whose names are addresses."""

    def __init__(self, places: Places, path: Path) -> None:
        self._path = places.now(path)
        self._accounts = places.accounts

    def names(self) -> Collection[str]:
        """See `IUsers.names`."""
        return {line.partition(":")[0].lower() for line in self._lines()}

    def add(self, name: str, password: str, addresses: Sequence[str]) -> None:
        """See `IUsers.add`."""
        text = "".join(f"{line}\n" for line in (*self._lines(), f"{name}:{scram_hash(password)}"))
        owner = self._accounts.ids(DOVECOT)
        atomic_write(self._path, text.encode(), 0o640, owner=owner)

    def _lines(self) -> list[str]:
        try:
            return self._path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []


def scram_hash(password: str) -> str:
    """A password as Dovecot keeps it in its scheme SCRAM-SHA-256."""
    keys = scram_keys(password, secrets.token_bytes(SALT_SIZE), ITERATIONS)
    parts = (b64encode(each).decode() for each in (keys.salt, keys.stored_key, keys.server_key))
    return f"{{SCRAM-SHA-256}}{keys.iterations},{','.join(parts)}"
