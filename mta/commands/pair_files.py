"""The files that ``mta pair`` makes in the office, beside the configuration.

They are the secret of a link, the nonce of its pairing, and the folders of its mailboxes.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mta.commands.console import Failed
from mta.config.places import Places
from mta.files import atomic_write, sync
from mta.mail import Agent
from mta.privileges import ROOT, Account, owner_of_new_file, server_account
from mta.settings import Settings
from mta.smtp.templates import file_name

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

FOLDER_MODE = 0o750  # as `mta init` makes them


class LinkFiles:
    """The files of the link to one relay.

    An older configuration goes on with the file that it names, but where other hosts have their
    secret in the same one.
    """

    def __init__(self, config: Path, relay: str) -> None:
        self._config = config
        self._keys = ("peers", relay, "connect", "secret")
        self._own = config.parent / secret_name(relay)
        self._nonce = config.parent / f".{relay}.pairing"

    def secret(self) -> Path:
        """The file of the secret.  Raises ConfigurationError."""
        places = Places(self._config)
        named = places.file_of(self._keys)
        if named is None or sum(file == named for _, file in places.secrets()) > 1:
            return self._own
        return named

    def write_secret(self, path: Path, secret: str, settings: Settings) -> None:
        """Write the secret for the server alone.  Raises PrivilegeFault or OSError."""
        owner = owner_of_new_file(path, settings)
        atomic_write(path, f"{secret}\n".encode(), owner=owner)

    def name_of(self, path: Path) -> str:
        """A file as the configuration names it."""
        return path.name if path.parent == self._config.parent else str(path)

    def nonce(self, id: str) -> str:
        """The nonce of a pairing, the same one at a repetition."""
        with suppress(FileNotFoundError, UnicodeDecodeError):
            known, _, nonce = self._nonce.read_text("ascii").strip().partition(" ")
            if known == id and len(nonce) == 32:
                return nonce
        nonce = secrets.token_hex(16)
        atomic_write(self._nonce, f"{id} {nonce}\n".encode())
        return nonce

    def remove(self, secret: Path) -> None:
        """Remove what a pairing left, once the configuration names it no more."""
        self._nonce.unlink(missing_ok=True)
        if all(file != secret for _, file in Places(self._config).secrets()):
            secret.unlink(missing_ok=True)


def require_name(name: str) -> None:
    """Refuse a name that no peer can have.  Raises Failed."""
    if not _NAME.fullmatch(name):
        raise Failed(f"{name!r} is no name of a peer: letters, digits, '-', '_' and '.' are")


def secret_name(relay: str) -> str:
    """The name of the file with the secret of a link."""
    return f"peer-{relay}.secret"


def prepare_folders(settings: Settings, domains: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Make the folders of these domains' mailboxes, where only root can.

    Yields folder and remedy, the remedy empty where root made it, for each that was missing.
    Raises PrivilegeFault or OSError.
    """
    account = server_account(settings)
    for folder in _folders(settings, domains):
        if _is_usable(folder, account):
            continue
        made = f"-o {account} -m {FOLDER_MODE:o} {folder}"
        if folder.exists():
            yield str(folder), f"chown {account} {folder}"
        elif os.geteuid() != ROOT:
            yield str(folder), f"install -d {made}"
        else:
            _make(folder, account)
            yield str(folder), ""


def _folders(settings: Settings, domains: Sequence[str]) -> Iterator[Path]:
    for name in domains:
        domain = settings.domains.get(name)
        if domain is not None and not domain.alias_of and domain.deliver.agent is Agent.MAILDIR:
            path = domain.deliver.next_hop.replace("{domain}", file_name(name))
            fixed, is_template, _ = path.partition("{")
            yield Path(f"{fixed}x").parent if is_template else Path(fixed)


def _make(folder: Path, account: Account) -> None:
    """Make a folder of the server's, as root."""
    folder.parent.mkdir(0o755, parents=True, exist_ok=True)
    folder.mkdir(0o700)  # a folder that is there is another's
    sync(folder.parent)
    # By its descriptor: others may write in /var/mail, and put a link there.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, account.uid, account.gid)
        os.fchmod(descriptor, FOLDER_MODE)
    finally:
        os.close(descriptor)


def _is_usable(folder: Path, account: Account) -> bool:
    """Tell whether the server may write in a folder, or make it."""
    while not folder.exists():
        folder = folder.parent
    status = folder.stat()
    if account.uid == ROOT:
        return True
    if status.st_uid == account.uid:
        return status.st_mode & 0o300 == 0o300
    if account.gid == status.st_gid:
        return status.st_mode & 0o030 == 0o030
    return status.st_mode & 0o003 == 0o003
