"""Looks at a spool without making or changing anything."""

from __future__ import annotations

from pathlib import Path

from mta.spool import owners
from mta.spool.database import SpoolUnusable, verify
from mta.spool.folder import Folder


def problem_of(spool: Path) -> str:
    """The problem with a spool folder, in one line; empty: none.

    None either where nothing is there yet.  Blocks.
    """
    try:
        if spool.exists():
            verify(Folder(spool))
    except SpoolUnusable as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or spool}: {error.strerror or error}"
    return ""


def is_in_use(spool: Path) -> bool:
    """Tell whether a process works with the spool now.  Blocks."""
    try:
        return bool(owners.live_owners(Folder(spool)))
    except OSError:
        return False
