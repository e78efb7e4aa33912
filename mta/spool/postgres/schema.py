"""The tables in PostgreSQL, and how older ones become them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mta.spool.database import SpoolTooNew, SpoolUnusable
from mta.spool.postgres.server import Connection, Server, transaction

VERSION = 1

_LOCK = 0x6D746131  # the advisory lock under which tables are made: "mta1"

# `schedule` is what attempts change: narrow rows, with room beside them for newer versions, and
# vacuumed early.  `message` is inserted once and deleted once: the origin as JSON, the header
# section, and the body in `data`, empty where `in_file` says that it is in `chunk`.
# `recipient` is written when a message was tried and waits.  `upload` names
# drafts whose bodies are in `chunk`, before their messages are committed.  `owner` has a row for
# each process: the `format` of the tables that it knows, when it is dead, by the clock of the
# database, and its part of what `clock` is for (see `mta.spool.postgres.database_clock`).  `format`
# has the version of these tables, and the oldest one whose programs can use them.  `taken` is the
# memory of `mta.spool.taken`, `dialled` has the process that dials a peer.
# The columns are those of `mta.spool.schema`, where these have the same names.
_TABLES = """
CREATE TABLE format (version integer NOT NULL, oldest integer NOT NULL);
CREATE TABLE schedule (
    id bigint PRIMARY KEY,
    due double precision NOT NULL,
    owner bigint,
    released_by bigint,
    shift double precision NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    on_hold smallint NOT NULL DEFAULT 0,
    deaths smallint NOT NULL DEFAULT 0,
    warned boolean NOT NULL DEFAULT false,
    recovered boolean NOT NULL DEFAULT false,
    reason text NOT NULL DEFAULT ''
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX schedule_due ON schedule (due)
    WHERE owner IS NULL AND on_hold = 0 AND deaths = 0;
CREATE INDEX schedule_owner ON schedule (owner) WHERE owner IS NOT NULL;
CREATE INDEX schedule_released ON schedule (released_by) WHERE released_by IS NOT NULL;
CREATE INDEX schedule_suspect ON schedule (due) WHERE deaths > 0;
CREATE TABLE message (
    id bigint PRIMARY KEY,
    size bigint NOT NULL,
    is_ascii boolean NOT NULL,
    in_file boolean NOT NULL,
    smtputf8 boolean NOT NULL,
    require_tls boolean NOT NULL,
    outside boolean NOT NULL,
    local_part text NOT NULL,
    domain text NOT NULL,
    body text NOT NULL,
    ret text NOT NULL,
    envid text NOT NULL,
    origin text NOT NULL,
    header bytea NOT NULL,
    data bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE message ALTER header SET STORAGE EXTERNAL, ALTER data SET STORAGE EXTERNAL;
CREATE TABLE recipient (
    message bigint NOT NULL,
    number integer NOT NULL,
    local_part text NOT NULL,
    domain text NOT NULL,
    notify text NOT NULL,
    original text NOT NULL,
    state text NOT NULL DEFAULT 'waiting',
    peer text NOT NULL DEFAULT '',
    held_domain text NOT NULL DEFAULT '',
    settled text NOT NULL DEFAULT '[]',
    history text NOT NULL DEFAULT '[]',
    offered double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (message, number)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX recipient_held ON recipient (peer, offered, message) WHERE state = 'held';
CREATE TABLE upload (message bigint PRIMARY KEY, owner bigint NOT NULL);
CREATE TABLE chunk (
    message bigint NOT NULL,
    number integer NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (message, number)
) WITH (autovacuum_vacuum_cost_delay = 0);
ALTER TABLE chunk ALTER data SET STORAGE EXTERNAL;
CREATE TABLE owner (
    id bigint PRIMARY KEY,
    node text NOT NULL,
    version text NOT NULL,
    format integer NOT NULL,
    began timestamptz NOT NULL DEFAULT clock_timestamp(),
    alive_until timestamptz NOT NULL,
    clock_offset double precision,
    correction double precision
) WITH (fillfactor = 50);
CREATE TABLE taken (key text PRIMARY KEY, at bigint NOT NULL, message bigint NOT NULL);
CREATE INDEX taken_at ON taken (at);
CREATE TABLE dialled (peer text PRIMARY KEY, owner bigint NOT NULL);
CREATE TABLE clock (wall double precision NOT NULL, correction double precision NOT NULL);
INSERT INTO clock VALUES (0, 0);
CREATE TABLE document (
    name text PRIMARY KEY,
    value text NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """SQL that makes tables those of the next version.

    `oldest`: the oldest version whose programs can use them then.
    """

    script: str
    oldest: int


_UPGRADES: dict[int, Upgrade] = {}  # by the version of before


def prepare(server: Server, connection: Connection) -> None:
    """Make the tables, or bring older ones to today's form.

    Raises SpoolUnusable, SpoolTooNew among them, or psycopg.Error.
    """
    with prepared(server, connection):
        pass


@contextmanager
def prepared(server: Server, connection: Connection) -> Iterator[None]:
    """Do more in the transaction of `prepare`.

    One process is in it at a time, so that none begins to use tables that another one changes.
    """
    _require_utf8(server, connection)
    with transaction(connection):
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        found, oldest = require_usable(server, connection)
        if found == 0:
            connection.execute(_TABLES.encode())
            connection.execute("INSERT INTO format VALUES (%s, %s)", (VERSION, VERSION))
        elif found < VERSION:
            _upgrade(server, connection, found, oldest)
        yield


def _upgrade(server: Server, connection: Connection, found: int, oldest: int) -> None:
    """Bring older tables to today's form.

    Raises SpoolUnusable where a process lives that could not use them then.
    """
    steps = [_UPGRADES[old] for old in range(found, VERSION)]
    oldest = max(oldest, *(step.oldest for step in steps))
    behind = connection.execute(
        "SELECT DISTINCT node FROM owner WHERE format < %s AND alive_until > clock_timestamp()",
        (oldest,),
    ).fetchall()
    if behind:
        raise SpoolUnusable(
            f"{server.name}: an older version of this program runs on"
            f" {', '.join(sorted(node for (node,) in behind))}, and could not use the tables of"
            " this one: stop it first"
        )
    for step in steps:
        connection.execute(step.script.encode())
    connection.execute("UPDATE format SET version = %s, oldest = %s", (VERSION, oldest))


def verify(server: Server, connection: Connection) -> bool:
    """Tell whether there are tables of this version, without making any.

    Raises SpoolUnusable where this version can't use them, or psycopg.Error.
    """
    _require_utf8(server, connection)
    found, _ = require_usable(server, connection)
    return found >= VERSION


def require_usable(server: Server, connection: Connection) -> tuple[int, int]:
    """The version of the tables, and the oldest that can use them.

    Both are 0 where there are none.  Raises SpoolTooNew where this version can't use them, or
    psycopg.Error.
    """
    found, oldest = _versions(connection)
    if oldest > VERSION:
        raise SpoolTooNew(
            f"{server.name}: made by a newer version of this program "
            f"(format {found}, this one knows {VERSION}): install that version"
        )
    return found, oldest


def _versions(connection: Connection) -> tuple[int, int]:
    """As `require_usable`, whatever they are."""
    row = connection.execute("SELECT to_regclass('format') IS NOT NULL").fetchone()
    if row is None or not row[0]:
        return 0, 0
    row = connection.execute("SELECT version, oldest FROM format").fetchone()
    return row or (0, 0)


def _require_utf8(server: Server, connection: Connection) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SpoolUnusable(
            f"{server.name}: its encoding is {encoding}: make the database with ENCODING 'UTF8'"
        )
