"""Looks at a spool without making or changing anything."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from mta.spool import owners, schema
from mta.spool.database import BUSY_TIMEOUT, SpoolUnusable, verify
from mta.spool.folder import Folder

_STEPS = 10_000  # instructions of SQLite between two looks at the time


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


def formats(spool: Path) -> tuple[int, int]:
    """The format of a spool, and the one of this version.

    Raises sqlite3.Error.  Blocks.
    """
    with closing(_opened(spool)) as connection:
        return schema.version(connection), schema.VERSION


def fault_of(spool: Path, seconds: float) -> str | None:
    """The first fault that SQLite finds in the database; empty: none.

    None: it would take longer than so many seconds.  Blocks.
    """
    end = time.monotonic() + seconds
    try:
        with closing(_opened(spool)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        return None if "interrupted" in str(error) else str(error)
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if found == "ok" else str(found)


def _opened(spool: Path) -> sqlite3.Connection:
    uri = f"{Folder(spool).database.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT)


def is_in_use(spool: Path) -> bool:
    """Tell whether a process works with the spool now.  Blocks."""
    try:
        return bool(owners.live_owners(Folder(spool)))
    except OSError:
        return False
