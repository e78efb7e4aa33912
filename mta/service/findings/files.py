"""Checks of the files and folders of the server's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mta.files import in_words
from mta.sealing.keys import SealKeyFault, private_keys, public_keys
from mta.service.findings.finding import Finding
from mta.service.findings.paths import exists, private, unix_socket, why_unwritable
from mta.settings import Settings
from mta.spool import inspection
from mta.spool.database import SpoolAway
from mta.spool.place import SpoolPlace
from mta.users.file import UserFault, UserFile

DOVECOT = "dovecot:"


def users(settings: Settings) -> Iterator[Finding]:
    """`users`: the file or Dovecot's socket, and the users of peers."""
    if settings.users.startswith(DOVECOT):
        yield from unix_socket(settings.users.removeprefix(DOVECOT), ("users",))
        return
    if not settings.users:
        return
    path = Path(settings.users)
    try:
        known = UserFile(path).load().users
    except UserFault as fault:
        yield Finding(("users",), str(fault), True)
        return
    yield from private(path, ("users",), "password hashes")
    for name, peer in settings.peers.items():
        if peer.user and peer.user.lower() not in known:
            yield Finding(
                ("peers", name, "user"),
                f"no user is called {peer.user!r}, so that this peer can't log in:"
                f" mta user add {peer.user}",
            )


def seals(settings: Settings) -> Iterator[Finding]:
    """`peers.NAME.seal`: keys that can be read, private ones by no others."""
    for name, peer in settings.peers.items():
        if not peer.seal:
            continue
        path, place = Path(peer.seal), ("peers", name, "seal", "key" if peer.connect else "file")
        try:
            if peer.connect:
                private_keys(path)
            else:
                public_keys(path)
        except SealKeyFault as fault:
            yield Finding(place, str(fault), True)
            continue
        if peer.connect:
            yield from private(path, place, "the key to sealed mail")


def spool(settings: Settings) -> Iterator[Finding]:
    """`spool`: the folder can be made or used, its files are sound."""
    path = Path(settings.spool)
    if settings.database:
        yield from _database(settings)
        error = why_unwritable(path)
    else:
        error = why_unwritable(path) or inspection.problem_of(path)
    if not error:
        return
    if settings.run_as and not exists(path):
        yield Finding(
            ("spool",), f"{path} is not there, and only root can make it, at the server's start"
        )
    else:
        yield Finding(("spool",), f"cannot use the spool {path}: {error}", True)


def _database(settings: Settings) -> Iterator[Finding]:
    """`spool`: the database can be used, and keeps what it has acknowledged."""
    place = SpoolPlace.of(settings)
    try:
        place.exists()
        found = place.weaknesses(settings.queue.workers)
    except SpoolAway as error:
        yield Finding(("spool",), f"{in_words(error)}; mail is refused until it can")
        return
    except OSError as error:
        yield Finding(("spool",), f"cannot use the spool {in_words(error)}", True)
        return
    for each in found:
        yield Finding(("spool",), f"{place.name}: {each}")


def log(settings: Settings) -> Iterator[Finding]:
    """`log.file`: it can be written."""
    if not settings.log.file:
        return
    path = Path(settings.log.file)
    error = ""
    if not path.parent.is_dir():
        error = f"{path.parent}: there is no such folder"
    elif path.is_dir():
        error = f"{path}: Is a directory"
    elif not path.exists():
        error = why_unwritable(path.parent)
    elif not os.access(path, os.W_OK):
        error = f"{path}: Permission denied"
    if error:
        yield Finding(("log", "file"), f"cannot write the log: {error}", True)
