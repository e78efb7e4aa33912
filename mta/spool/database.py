"""The database of the spool: opening, locking, errors."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mta.files import create, sync, sync_file
from mta.queued import SpoolFull
from mta.spool import schema
from mta.spool.folder import Folder

BUSY_TIMEOUT = 30  # seconds: a client waits ten minutes for its 250, RFC 5321 section 4.5.3.2.6

PAGE = 8192  # octets: such pages hold most messages without overflow pages

# A checkpoint every 16 MiB finds that most of the log is about messages that have come and gone.
# Debian's SQLite overwrites what is deleted: that is a second write of each message.
_SETTINGS = f"""
PRAGMA page_size = {PAGE};
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 2000;
PRAGMA journal_size_limit = 67108864;
PRAGMA cache_size = -16384;
PRAGMA temp_store = MEMORY;
PRAGMA secure_delete = OFF;
"""


class SpoolUnusable(OSError):
    """The spool can't be used until the operator has done something.

    One line says why, and what to do.
    """


class SpoolAway(OSError):
    """The database of the spool can't be reached now.  Ask again later."""


class SpoolDamaged(SpoolUnusable):
    """The spool's database is not one, is broken, or is gone."""


class SpoolTooNew(SpoolUnusable):
    """A newer version of the program made the database."""


def open_database(folder: Folder) -> sqlite3.Connection:
    """Open the spool's database, making it if need be.

    The connection may move between threads, one at a time.  Raises SpoolDamaged, or OSError
    where the folder can't be used or was written by a newer version.
    """
    folder.make()
    with as_oserror(folder):
        if not _is_made(folder):
            _make(folder)
        return _connected(folder.database, folder)


def _is_made(folder: Folder) -> bool:
    """Tell whether there is a database.

    An empty file is what a loss of power may have left.
    """
    try:
        return folder.database.stat().st_size > 0
    except FileNotFoundError:
        return False


def _make(folder: Folder) -> None:
    """Make the database under another name first: no crash leaves half.

    Raises SpoolDamaged where the folder has had one before.
    """
    with commit_lock(folder):
        if _is_made(folder):
            return  # another process was faster
        _refuse_lost(folder)
        draft = folder.path / f".queue.{secrets.token_hex(8)}"
        try:
            os.close(create(draft, os.O_RDWR | os.O_EXCL))
            _connected(draft, folder).close()
            sync_file(draft)
            for suffix in ("-wal", "-shm"):  # of an empty database that is replaced
                Path(f"{folder.database}{suffix}").unlink(missing_ok=True)
            draft.replace(folder.database)
        finally:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{draft}{suffix}").unlink(missing_ok=True)
        sync(folder.path)


def verify(folder: Folder) -> None:
    """See that the database could be opened, without making or changing anything.

    Raises SpoolUnusable or OSError, as `open_database` would.
    """
    with as_oserror(folder):
        if not _is_made(folder):
            _refuse_lost(folder)
            return
        uri = f"{folder.database.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT)) as connection:
            connection.execute("SELECT name FROM sqlite_master").fetchall()
            if (found := schema.version(connection)) > schema.VERSION:
                raise _too_new(folder, found)
            if found == schema.VERSION:
                _require_tables(connection, folder)
            elif found not in schema.VERSIONS:
                raise _no_version(folder, found)


def _refuse_lost(folder: Folder) -> None:
    """Raise SpoolDamaged where the folder has what only a used spool has."""
    log = Path(f"{folder.database}-wal")
    if trace := folder.traces() or (log.exists() and log.stat().st_size and str(log)):
        raise _lost(folder, trace)


def _lost(folder: Folder, trace: str) -> SpoolDamaged:
    return SpoolDamaged(
        f"{folder.database} is missing or empty, but {trace} is there: restore the database from a"
        f" backup, or move {folder.path} away to begin anew"
    )


def _too_new(folder: Folder, found: int) -> SpoolTooNew:
    return SpoolTooNew(
        f"{folder.database}: made by a newer version of this program "
        f"(format {found}, this one knows {schema.VERSION}): install that version"
    )


def _no_version(folder: Folder, found: int) -> SpoolDamaged:
    return _damaged(folder, f"its format is {found}, which never was one")


def _damaged(folder: Folder, reason: str) -> SpoolDamaged:
    return SpoolDamaged(
        f"{folder.database}: {reason}: restore it from a backup, or move it away to begin anew"
    )


def _require_tables(connection: sqlite3.Connection, folder: Folder) -> None:
    """Raise SpoolDamaged where a table or a column is missing."""
    if missing := schema.missing_columns(connection):
        raise _damaged(folder, f"its column {missing[0]} is missing")


def _connected(path: Path, folder: Folder) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        _prepare(connection, folder)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, folder: Folder) -> None:
    connection.executescript(_SETTINGS)
    if (found := schema.version(connection)) < schema.VERSION:
        if found == 0 and (trace := folder.traces()):
            raise _lost(folder, trace)
        if found not in schema.VERSIONS:
            raise _no_version(folder, found)
        with transaction(connection):
            schema.upgrade(connection)
    if (found := schema.version(connection)) != schema.VERSION:
        raise _too_new(folder, found)
    _require_tables(connection, folder)
    if not _was_used(connection) and (unknown := folder.complete()):
        raise _lost(folder, str(folder.content(min(unknown))))


@contextmanager
def commit_lock(folder: Folder) -> Iterator[None]:
    """Hold the commit lock, in a program that commits seldom.

    Raises OSError.
    """
    descriptor = create(folder.commit_lock, os.O_RDWR)
    try:
        with locked(descriptor):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Hold a file lock.  The kernel wakes us for it, where SQLite would poll."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _was_used(connection: sqlite3.Connection) -> bool:
    """Tell whether a server ran on this database, or mail came in."""
    # One after the other: where the first says it, a damaged list of messages keeps none from it.
    return any(
        connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0]  # noqa: S608 (our own words)
        for table in ("clock", "message", "leftover")
    )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do all of it or nothing.  It is on stable storage when this ends."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def spare(connection: sqlite3.Connection) -> int:
    """Octets that the database has for new content without growing."""
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages) * PAGE


@contextmanager
def as_oserror(folder: Folder) -> Iterator[None]:
    """Raise the spool's errors for those of `FAULTS`."""
    try:
        yield
    except FAULTS as error:
        known = translated(error, folder)
        if known is error:
            raise
        raise known from error


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Tell whether the rows are damaged, and others may be read.

    Python has no code of SQLite's for text that is none.
    """
    return primary_code(error) in (0, sqlite3.SQLITE_CORRUPT)


# Of the disk, the database or the memory.  Where SQLite has none, Python raises its own error.
FAULTS = (sqlite3.Error, OSError, MemoryError)

_NO_ROOM_FOR_SHM = sqlite3.SQLITE_IOERR_SHMSIZE
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def translated(error: sqlite3.Error | OSError | MemoryError, folder: Folder) -> OSError:
    """SpoolFull, SpoolDamaged or OSError, in one line that names the file."""
    if isinstance(error, MemoryError):
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(folder.database))
    if isinstance(error, OSError):
        if is_full(error) and not isinstance(error, SpoolFull):
            return SpoolFull(error.errno, error.strerror, error.filename)
        return error
    if is_full(error):
        return SpoolFull(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.database))
    if primary_code(error) in _DAMAGE:
        return _damaged(folder, str(error))
    return OSError(errno.EIO, str(error), str(folder.database))


def is_full(error: Exception) -> bool:
    """Tell whether the error means that the disk is full.

    SQLite has an I/O error where the file of shared memory can't grow, which has no other reason.
    """
    if isinstance(error, sqlite3.Error):
        extended = getattr(error, "sqlite_errorcode", 0)
        return primary_code(error) == sqlite3.SQLITE_FULL or extended == _NO_ROOM_FOR_SHM
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without its extension; 0 for errors of Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
