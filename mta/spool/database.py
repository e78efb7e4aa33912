"""The database of the spool: how it is opened, its tables, and its errors."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from mta.files import sync, sync_file
from mta.interfaces import SpoolFull
from mta.spool.folder import Folder, create

P = ParamSpec("P")
T = TypeVar("T")

VERSION = 4
BUSY_TIMEOUT = 30  # seconds; a client waits ten minutes for its 250, RFC 5321 section 4.5.3.2.6

# Octets; such pages hold most messages without overflow pages.
PAGE = 8192

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

# `message` is what attempts change, small and apart from `content`, which never changes.
# Where `in_file` is set, the content is a file and has no row.  `put_by` is the owner that gave a
# message back untried, and remembers it.  `on_hold` is one of `mta.spool.rows.Hold`, `reason` says
# why where that was no person.  `deaths`: how many owners ended in an attempt.  `shift`: seconds by
# which the clock was set since the message arrived.  `outside`: neither a user nor a host of ours
# sent it, or an older version took it, which did not ask.  `owner` has a row for each process,
# whose `beat` grows as long as it commits; `clock` has one, the last look at the clocks.
_TABLES = """
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    due REAL NOT NULL,
    owner INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    warned INTEGER NOT NULL DEFAULT 0,
    on_hold INTEGER NOT NULL DEFAULT 0,
    recovered INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL,
    is_ascii INTEGER NOT NULL,
    in_file INTEGER NOT NULL,
    local_part TEXT NOT NULL,
    domain TEXT NOT NULL,
    body TEXT NOT NULL,
    smtputf8 INTEGER NOT NULL,
    ret TEXT NOT NULL,
    envid TEXT NOT NULL,
    require_tls INTEGER NOT NULL,
    put_by INTEGER,
    deaths INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    shift REAL NOT NULL DEFAULT 0,
    outside INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX schedule ON message (due, owner);
CREATE INDEX put_by ON message (put_by) WHERE put_by IS NOT NULL;
CREATE INDEX suspect ON message (due) WHERE deaths > 0;
CREATE TABLE owner (id INTEGER PRIMARY KEY, beat INTEGER NOT NULL);
CREATE TABLE clock (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    wall REAL NOT NULL,
    uptime REAL NOT NULL,
    boot TEXT NOT NULL
);
CREATE TABLE content (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE recipient (
    message INTEGER NOT NULL,
    number INTEGER NOT NULL,
    local_part TEXT NOT NULL,
    domain TEXT NOT NULL,
    notify TEXT NOT NULL,
    original TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    peer TEXT NOT NULL DEFAULT '',
    held_domain TEXT NOT NULL DEFAULT '',
    settled TEXT NOT NULL DEFAULT '[]',
    history TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (message, number)
) WITHOUT ROWID;
CREATE INDEX held ON recipient (peer, message) WHERE state = 'held';
CREATE TABLE leftover (id INTEGER PRIMARY KEY);
CREATE TRIGGER removal AFTER DELETE ON message BEGIN
    DELETE FROM content WHERE id = old.id;
    DELETE FROM recipient WHERE message = old.id;
    INSERT INTO leftover SELECT old.id WHERE old.in_file;
END;
"""

# What makes a database of an older version one of the next, by the older one's number.
_UPGRADES = {
    1: """
ALTER TABLE message ADD COLUMN put_by INTEGER;
CREATE INDEX put_by ON message (put_by) WHERE put_by IS NOT NULL;
""",
    2: """
ALTER TABLE message ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE message ADD COLUMN shift REAL NOT NULL DEFAULT 0;
CREATE INDEX suspect ON message (due) WHERE deaths > 0;
CREATE TABLE owner (id INTEGER PRIMARY KEY, beat INTEGER NOT NULL);
CREATE TABLE clock (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    wall REAL NOT NULL,
    uptime REAL NOT NULL,
    boot TEXT NOT NULL
);
UPDATE message SET due = 9e999 WHERE owner IS NOT NULL;
""",
    3: """
ALTER TABLE message ADD COLUMN outside INTEGER NOT NULL DEFAULT 1;
""",
}


class SpoolUnusable(OSError):
    """The spool can't be used until a person has looked at it: one line says why and what to do."""


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
    """Whether there is a database.  An empty file is what a loss of power may have left."""
    try:
        return folder.database.stat().st_size > 0
    except FileNotFoundError:
        return False


def _make(folder: Folder) -> None:
    """Make the database whole under another name, so that no crash leaves half of one.

    Raises SpoolDamaged where the folder has had one before.
    """
    descriptor = create(folder.commit_lock, os.O_RDWR)
    try:
        with turn(descriptor):
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
    finally:
        os.close(descriptor)


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
            if (found := _version(connection)) > VERSION:
                raise _too_new(folder, found)


def _refuse_lost(folder: Folder) -> None:
    """Raise SpoolDamaged where something is there that only a spool in use has."""
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
        f"(format {found}, this one knows {VERSION}): install that version"
    )


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
    if (found := _version(connection)) < VERSION:
        if found == 0 and (trace := folder.traces()):
            raise _lost(folder, trace)
        with transaction(connection):
            _upgrade(connection)
    if (found := _version(connection)) != VERSION:
        raise _too_new(folder, found)
    if not _was_used(connection) and (unknown := folder.complete()):
        raise _lost(folder, str(folder.content(min(unknown))))


@contextmanager
def turned(folder: Folder) -> Iterator[None]:
    """Wait for our turn to commit, for who commits now and then.  Raises OSError."""
    descriptor = create(folder.commit_lock, os.O_RDWR)
    try:
        with turn(descriptor):
            yield
    finally:
        os.close(descriptor)


@contextmanager
def turn(descriptor: int) -> Iterator[None]:
    """Wait for our turn to commit, in the kernel: SQLite itself would poll for it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _upgrade(connection: sqlite3.Connection) -> None:
    """Make the tables, or make older ones what they are today; nothing where nothing is to do."""
    found = _version(connection)
    scripts = [_TABLES] if found == 0 else [_UPGRADES[old] for old in range(found, VERSION)]
    for script in scripts:
        for statement in _statements(script):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _was_used(connection: sqlite3.Connection) -> bool:
    """Whether a server ever ran on this database, or something was put into it."""
    (used,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM clock) OR EXISTS (SELECT 1 FROM message)"
        " OR EXISTS (SELECT 1 FROM leftover)"
    ).fetchone()
    return bool(used)


def _statements(script: str) -> Iterator[str]:
    """Split a script, which executescript() would take out of our transaction."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


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


class Reader:
    """One connection for reading, which threads use in turn.

    `waits`: False where who finds it in use gets an OSError at once, so that nobody keeps a
    thread waiting for a look that takes long.
    """

    def __init__(self, folder: Folder, *, waits: bool = True) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._waits = waits
        self._connection = open_database(folder)

    def call(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a function with the connection.  Raises OSError for the database's errors."""
        if not self._lock.acquire(blocking=self._waits):
            raise BlockingIOError(errno.EAGAIN, "another look at the queue is under way")
        try:
            with as_oserror(self._folder):
                return function(self._connection, *args, **kwargs)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Wait for the thread that reads now, and close the connection."""
        with self._lock:
            self._connection.close()


@contextmanager
def as_oserror(folder: Folder) -> Iterator[None]:
    """Turn what goes wrong with the disk or the database into the spool's errors."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        known = translated(error, folder)
        if known is error:
            raise
        raise known from error


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the rows that were asked for are damaged, so that others may be read.

    Python has no code of SQLite's for text that is none.
    """
    return primary_code(error) in (0, sqlite3.SQLITE_CORRUPT)


_NO_ROOM_FOR_SHM = sqlite3.SQLITE_IOERR_SHMSIZE
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def translated(error: sqlite3.Error | OSError, folder: Folder) -> OSError:
    """SpoolFull, SpoolDamaged or OSError, in one line that names the file."""
    if isinstance(error, OSError):
        if is_full(error) and not isinstance(error, SpoolFull):
            return SpoolFull(error.errno, error.strerror, error.filename)
        return error
    if is_full(error):
        return SpoolFull(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.database))
    if primary_code(error) in _DAMAGE:
        return SpoolDamaged(
            f"{folder.database}: {error}: restore it from a backup, or move it away to begin anew"
        )
    return OSError(errno.EIO, str(error), str(folder.database))


def is_full(error: Exception) -> bool:
    """Whether there is no room on the disk.

    The file of shared memory can't grow for no other reason; SQLite calls that an I/O error.
    """
    if isinstance(error, sqlite3.Error):
        extended = getattr(error, "sqlite_errorcode", 0)
        return primary_code(error) == sqlite3.SQLITE_FULL or extended == _NO_ROOM_FOR_SHM
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without its extension; 0 where Python itself found the fault."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
