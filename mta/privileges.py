"""The user that we work as: root gives up its rights early.

Root must not work on files of the server's user: it would follow links that this user made, leave
files that the server can't read, and handle the mail of strangers with all rights.
"""

from __future__ import annotations

import codecs
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from mta.files import make_folder
from mta.settings import Settings

ROOT = 0  # user id

_LATE_CODECS = ("ascii", "idna", "latin-1", "utf-8-sig")
_LATE_MODULES = ("twisted.internet.default", "twisted.internet.epollreactor", "traceback")


class PrivilegeFault(Exception):
    """Rights with which we can't work: one line for the operator."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this host; `name` is empty where there is none."""

    uid: int
    gid: int
    name: str = ""

    def __str__(self) -> str:
        return self.name or str(self.uid)

    def become(self) -> None:
        """Work as this user from now on, with its groups.  Only root can.  Raises OSError."""
        _load_early()
        if self.name:
            os.initgroups(self.name, self.gid)
        else:
            os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)


def require_no_root(settings: Settings, *, has_uid: bool) -> None:
    """Refuse to deliver as root.  Raises PrivilegeFault.

    `has_uid`: ``--uid`` tells `twistd` which user to become.
    """
    if os.geteuid() != ROOT:
        return
    if has_uid:
        _load_early()
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

    Before that, the spool folder, the log file and the open `sockets` are given to that user: only
    root can.  Raises PrivilegeFault or OSError.
    """
    if os.geteuid() != ROOT or not settings.run_as:
        return
    account = _run_as(settings)
    if account.uid == ROOT:
        return
    spool = Path(settings.spool)
    if not spool.exists():
        spool.parent.mkdir(parents=True, exist_ok=True)
        make_folder(spool, 0o700)
        os.chown(spool, account.uid, account.gid, follow_symlinks=False)
    if settings.log.file:
        give(Path(settings.log.file), account)
    for socket in sockets:
        os.chown(socket, account.uid, account.gid, follow_symlinks=False)
    account.become()


def act_as_server(settings: Settings) -> None:
    """Become the server's user, where root called us.  Raises PrivilegeFault or OSError."""
    if os.geteuid() == ROOT and (account := server_account(settings)).uid != ROOT:
        account.become()


def server_account(settings: Settings) -> Account:
    """The user that the server runs as: `run_as`, else the spool's owner.

    Raises PrivilegeFault.
    """
    if settings.run_as and (account := _run_as(settings)).uid != ROOT:
        return account
    return _owner(Path(settings.spool))


def owner_of_new_file(path: Path, settings: Settings) -> tuple[int, int] | None:
    """The user and group for a new file that the server reads.

    Where the file's folder is not root's, we become its owner instead.  None: the file keeps the
    owner that it gets, as we are not root or the server is.  Raises PrivilegeFault or OSError.
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
    """Give a file of root's to a user.  Raises OSError.

    Links are left alone, and files with another name: the user may have made them.
    """
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
    """Load late modules now, where only root may read their files."""
    if all(_is_open_to_all(Path(file)) for file in (os.__file__, codecs.__file__, __file__)):
        return
    for codec in _LATE_CODECS:
        codecs.lookup(codec)
    for name in (*_our_modules(), *_LATE_MODULES):
        with suppress(ImportError):  # an extra that is not installed, another kind of system
            import_module(name)


def _our_modules() -> Iterator[str]:
    """The names of all modules that the program may need."""
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        first, *rest = path.relative_to(folder).with_suffix("").parts
        if first != "testing":  # stand-ins for tests, and trial with them
            yield ".".join(("mta", first, *rest)).removesuffix(".__init__")


def _is_open_to_all(path: Path) -> bool:
    """Tell whether all users may enter the folders above a file."""
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
    """The owner of a folder, or of the nearest above that exists."""
    while not path.exists():
        path = path.parent
    status = path.stat()
    try:
        entry = pwd.getpwuid(status.st_uid)
    except KeyError:
        return Account(status.st_uid, status.st_gid)
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)
