"""Looks at files, folders and sockets, for several checks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mta.service.findings.finding import Finding, Keys

FOR_OTHERS = 0o007  # rights of users that are neither owner nor in the group


def exists(path: Path) -> bool:
    """Tell whether a file exists, as far as we may look."""
    with suppress(OSError):
        return path.exists()
    return False


def why_unwritable(path: Path) -> str:
    """The reason why we can't make or use a folder, or nothing."""
    while not path.exists():
        if path == path.parent or (not os.access(path.parent, os.X_OK) and path.parent.exists()):
            return f"{path}: Permission denied"
        path = path.parent
    if not path.is_dir():
        return f"{path}: Not a directory"
    return "" if os.access(path, os.W_OK | os.X_OK) else f"{path}: Permission denied"


def unix_socket(path: str, keys: Keys) -> Iterator[Finding]:
    """Warn where another program's socket can't be used."""
    if not Path(path).is_socket():
        yield Finding(keys, f"{path}: there is no such socket now")
    elif not os.access(path, os.W_OK):
        yield Finding(keys, f"{path}: Permission denied: the program behind it can't be asked")


def private(path: Path, keys: Keys, what: str) -> Iterator[Finding]:
    """Warn where a file with such content is open to all users."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # another check tells of a file that is missing
    if mode & FOR_OTHERS:
        yield Finding(
            keys, f"{path}: has {what}, and is open to all users of this host: chmod o= {path}"
        )
