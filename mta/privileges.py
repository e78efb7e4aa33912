"""Whose rights we work with: root's end before anything of the mail system is opened.

What the server's user owns is not for root to work on: root would follow links that this user
made, leave files that he can't read, and run on the mail of strangers what they can reach.
"""

from __future__ import annotations

import codecs
import os
import pwd
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

from mta.settings import Settings

ROOT = 0  # user id

_LATE_CODECS = ("ascii", "idna", "latin-1", "utf-8-sig")
_LATE_MODULES = ("twisted.internet.default", "twisted.internet.epollreactor", "traceback")


class PrivilegeFault(Exception):
    """We can't work with the rights that we have: one line for a person."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this host; `name` is empty where the number has none."""

    uid: int
    gid: int
    name: str = ""

    def __str__(self) -> str:
        return self.name or str(self.uid)

    def become(self) -> None:
        """Be this user from now on, with his groups alone.  Only root can.  Raises OSError."""
        _load_early()
        if self.name:
            os.initgroups(self.name, self.gid)
        else:
            os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)


def require_no_root(settings: Settings, *, has_uid: bool) -> None:
    """See that the server will not deliver as root.  Raises PrivilegeFault.

    `has_uid`: `twistd` is told by ``--uid`` whom to become.
    """
    if os.geteuid() != ROOT:
        return
    _load_early()
    if has_uid:
        return
    if not settings.run_as:
        owner = _owner(Path(settings.spool))
        user = "mta" if owner.uid == ROOT else str(owner)
        raise PrivilegeFault(
            f"refusing to deliver mail as root: set `run_as: {user}` in the configuration,"
            f" or call twistd with --uid {user}; `run_as: root` if root is what you mean"
        )
    owner = _owner(Path(settings.spool))
    if _run_as(settings).uid == ROOT and owner.uid != ROOT:
        raise PrivilegeFault(
            f"`run_as: root`, but the spool {settings.spool} belongs to {owner}:"
            f" set `run_as: {owner}`, or give the folder and all that is in it to root"
        )


def drop_root(settings: Settings, sockets: Iterable[Path] = ()) -> None:
    """Become `run_as`, where root has started the server.

    What the server needs and only root can make, is made and given to the user before: the
    spool folder, the log file and the `sockets` that are open.  Raises PrivilegeFault or OSError.
    """
    if os.geteuid() != ROOT or not settings.run_as:
        return
    account = _run_as(settings)
    if account.uid == ROOT:
        return
    spool = Path(settings.spool)
    if not spool.exists():
        spool.parent.mkdir(parents=True, exist_ok=True)
        spool.mkdir(0o700)
        os.chown(spool, account.uid, account.gid, follow_symlinks=False)
    if settings.log.file:
        give(Path(settings.log.file), account)
    for socket in sockets:
        os.chown(socket, account.uid, account.gid, follow_symlinks=False)
    account.become()


def act_as_server(settings: Settings) -> None:
    """As root, become the server's user, where it is another.  Raises PrivilegeFault or OSError."""
    if os.geteuid() == ROOT and (account := server_account(settings)).uid != ROOT:
        account.become()


def server_account(settings: Settings) -> Account:
    """The user that the server runs as: `run_as`, else whose the spool is or will be.

    Raises PrivilegeFault.
    """
    if settings.run_as and (account := _run_as(settings)).uid != ROOT:
        return account
    return _owner(Path(settings.spool))


def owner_of_new_file(path: Path, settings: Settings) -> tuple[int, int] | None:
    """The user and group that root gives a file to which the server's user must read.

    Where the file's folder is not root's, we become its owner instead.  None: we are not root, or
    nothing tells who the server is.  Raises PrivilegeFault or OSError.
    """
    if os.geteuid() != ROOT:
        return None
    folder = _owner(path.parent)
    if folder.uid != ROOT:
        folder.become()
        return None
    account = server_account(settings)
    return None if account.uid == ROOT else (account.uid, account.gid)


def give(path: Path, account: Account) -> None:
    """Give a file of root's to a user, if it is a file and has no other name.  Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == ROOT:
            os.fchown(descriptor, account.uid, account.gid)
    finally:
        os.close(descriptor)


def _load_early() -> None:
    """Load what else is loaded when it is needed, where only root may enter its folders."""
    if all(_is_open_to_all(Path(file)) for file in (os.__file__, codecs.__file__, __file__)):
        return
    for codec in _LATE_CODECS:
        codecs.lookup(codec)
    ours = (module.name for module in walk_packages([str(Path(__file__).parent)], "mta."))
    for name in (*ours, *_LATE_MODULES):
        with suppress(ImportError):  # an extra that is not installed, another kind of system
            import_module(name)


def _is_open_to_all(path: Path) -> bool:
    """Whether everybody may pass through all folders on the way to a file."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)


def _run_as(settings: Settings) -> Account:
    try:
        return account_named(settings.run_as)
    except PrivilegeFault as fault:
        raise PrivilegeFault(f"`run_as`: {fault}: make it with useradd --system") from None


def account_named(name: str) -> Account:
    """The user of that name.  Raises PrivilegeFault."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise PrivilegeFault(f"this host has no user {name!r}") from None
    return Account(entry.pw_uid, entry.pw_gid, name)


def _owner(path: Path) -> Account:
    """Whose a folder is, or would be if it was made: the owner of the nearest that there is."""
    while not path.exists():
        path = path.parent
    status = path.stat()
    try:
        entry = pwd.getpwuid(status.st_uid)
    except KeyError:
        return Account(status.st_uid, status.st_gid)
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)
