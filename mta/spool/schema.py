"""The tables of the spool's database, and how older ones become them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from enum import IntEnum
from functools import cache

VERSION = 6


class Hold(IntEnum):
    """The reasons why a message is on hold: column `on_hold`."""

    NO = 0
    BY_HAND = 1
    SUSPECT = 2  # the program ended while it tried the message
    DAMAGED = 3


# `message` is what attempts change, small and apart from `content`, which never changes: the origin
# as JSON, the header section, and the body in `data`, empty where `in_file` says that it is a file.
# Where `header` is NULL an older version took the message: all of its content is in `data`, or in
# the file, without a row.  `released_by` is the owner that released a message untried, and
# remembers it.  `on_hold` is a `Hold`, `reason` says why where that was no
# person.  `deaths`: how many owners ended in an attempt.  `shift`: seconds by which the clock was
# set since the message arrived.  `outside`: neither a user nor a host of ours sent it, or an older
# version took it, which did not ask.  `owner` has a row for each process, whose `beat` grows as
# long as it commits; `clock` has one, the last look at the clocks.  `offered` is when its peer was
# last offered a recipient's held mail, seconds since the epoch; 0: never.
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
    released_by INTEGER,
    deaths INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    shift REAL NOT NULL DEFAULT 0,
    outside INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX schedule ON message (due, owner);
CREATE INDEX released ON message (released_by) WHERE released_by IS NOT NULL;
CREATE INDEX suspect ON message (due) WHERE deaths > 0;
CREATE TABLE owner (id INTEGER PRIMARY KEY, beat INTEGER NOT NULL);
CREATE TABLE clock (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    wall REAL NOT NULL,
    uptime REAL NOT NULL,
    boot TEXT NOT NULL
);
CREATE TABLE content (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL DEFAULT '',
    header BLOB,
    data BLOB NOT NULL
);
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
    offered REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (message, number)
) WITHOUT ROWID;
CREATE INDEX held ON recipient (peer, offered, message) WHERE state = 'held';
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
    4: """
ALTER TABLE content ADD COLUMN header BLOB;
ALTER TABLE content ADD COLUMN origin TEXT NOT NULL DEFAULT '';
ALTER TABLE message RENAME COLUMN put_by TO released_by;
DROP INDEX put_by;
CREATE INDEX released ON message (released_by) WHERE released_by IS NOT NULL;
""",
    5: """
ALTER TABLE recipient ADD COLUMN offered REAL NOT NULL DEFAULT 0;
DROP INDEX held;
CREATE INDEX held ON recipient (peer, offered, message) WHERE state = 'held';
""",
}
VERSIONS = (0, *_UPGRADES, VERSION)  # all that there ever were; 0: without tables


def upgrade(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring older ones to today's form."""
    found = version(connection)
    scripts = [_TABLES] if found == 0 else [_UPGRADES[old] for old in range(found, VERSION)]
    for script in scripts:
        for statement in _statements(script):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def version(connection: sqlite3.Connection) -> int:
    """The version that made a database; 0: none has yet."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    return int(found)


def missing_columns(connection: sqlite3.Connection) -> list[str]:
    """The columns that a database of this version lacks, as TABLE.COLUMN."""
    return sorted(_needed_columns() - _columns(connection))


@cache
def _needed_columns() -> frozenset[str]:
    with closing(sqlite3.connect(":memory:")) as model:
        model.executescript(_TABLES)
        return _columns(model)


def _columns(connection: sqlite3.Connection) -> frozenset[str]:
    found = connection.execute(
        """
        SELECT t.name || '.' || c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c
        WHERE t.type = 'table'
        """
    )
    return frozenset(name for (name,) in found)


def _statements(script: str) -> Iterator[str]:
    """Split a script, which executescript() would take out of our transaction."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
