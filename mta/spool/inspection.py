"""Whether a spool can be used, found out without making or changing anything."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from mta.spool import owners
from mta.spool.database import VERSION
from mta.spool.folder import Folder


def problem_of(spool: Path) -> str:
    """What is wrong with the database in a spool folder; empty where nothing is, or none is there.

    Blocks.
    """
    database = Folder(spool).database
    try:
        if not database.exists():
            return ""
        # Read-only, so that a look at a spool that is not used makes no files.
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as look:
            (version,) = look.execute("PRAGMA user_version").fetchone()
            look.execute("SELECT name FROM sqlite_master").fetchall()
    except (sqlite3.Error, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return f"{database}: {reason}: restore it from a backup, or move it away"
    if version > VERSION:
        return (
            f"{database}: made by a newer version of this program"
            f" (format {version}, this one knows {VERSION}): install that version"
        )
    return ""


def is_in_use(spool: Path) -> bool:
    """Whether a process works with the spool now.  Blocks."""
    try:
        return bool(owners.living(Folder(spool)))
    except OSError:
        return False
