"""The settings of a PostgreSQL server that may cost mail."""

from __future__ import annotations

from collections.abc import Iterator

from mta.spool.postgres.server import Connection

_WANTED = {
    "fsync": "a loss of power loses acknowledged mail, and may damage the database",
    "full_page_writes": "a loss of power may damage the database",
}
_NO_STANDBY = (
    "synchronous_standby_names is empty: a failover to a standby that is behind loses"
    " acknowledged mail"
)

CONNECTIONS = 6  # of a process: docs/spool.rst names them

# A role, and a database, may have bounds of their own; -1: none.
_MAX_CONNECTIONS = """
SELECT least(
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer,
    nullif(rolconnlimit, -1), nullif(datconnlimit, -1))
FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()
"""
_OTHERS = """
SELECT count(*) FROM owner
WHERE node NOT IN ('', %s) AND alive_until > clock_timestamp()
"""


def weaknesses(connection: Connection, node: str, processes: int) -> list[str]:
    """The settings that may cost mail, a line each.

    `processes`: of this `node`.  There may be no tables.
    """
    return [*_losing(connection), *_too_few(connection, node, processes)]


def _too_few(connection: Connection, node: str, processes: int) -> Iterator[str]:
    """Look for connections for all nodes."""
    found = connection.execute("SELECT to_regclass('owner') IS NOT NULL").fetchone()
    if found and found[0]:
        processes += (connection.execute(_OTHERS, (node,)).fetchone() or (0,))[0]
    (most,) = connection.execute(_MAX_CONNECTIONS).fetchone() or (None,)
    if most is not None and most < CONNECTIONS * processes:
        yield (
            f"it takes {most} connections, and {processes} processes of its nodes have"
            f" {CONNECTIONS} each: mail is refused where there is none: raise max_connections"
        )


def _losing(connection: Connection) -> Iterator[str]:
    for name, harm in _WANTED.items():
        if _setting(connection, name) == "off":
            yield f"{name} is off: {harm}"
    has_standby = connection.execute("SELECT EXISTS (SELECT FROM pg_stat_replication)").fetchone()
    if has_standby and has_standby[0] and not _setting(connection, "synchronous_standby_names"):
        yield _NO_STANDBY


def _setting(connection: Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    return str(row[0]) if row else ""
