"""Repairs that are safe: rights and owners of private files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mta.config.places import Places
from mta.doctor.result import Result, ok
from mta.privileges import ROOT, Account, give
from mta.service.findings.paths import FOR_OTHERS
from mta.settings import Settings
from mta.tls.context import pairs_of


def repair(path: Path, settings: Settings, account: Account | None) -> Iterator[Result]:
    """Close private files to other users, and give root's to the server's.

    `path` is the configuration; `account` is that of the server, None: our own.  Blocks, and
    leaves alone what it may not change.
    """
    for file in sorted(_private_files(path, settings)):
        with suppress(OSError):
            mode = file.stat().st_mode
            if mode & FOR_OTHERS:
                file.chmod(mode & 0o7777 & ~FOR_OTHERS)
                yield ok(f"{file}: closed to other users (chmod o=)")
            is_ours = os.geteuid() == ROOT and file.stat().st_uid == ROOT
            if account is not None and account.uid != ROOT and is_ours and file != path:
                give(file, account)
                if file.stat().st_uid == account.uid:
                    yield ok(f"{file}: given to {account} (chown)")


def _private_files(path: Path, settings: Settings) -> set[Path]:
    files = {pair.key for pair in pairs_of(settings.tls)}
    if settings.users.startswith("/"):
        files.add(Path(settings.users))
    files |= {key.file for domain in settings.domains.values() for key in domain.dkim}
    for _, file in Places(path).secrets():
        files.add(file or path)
    return files
