"""The settings of a PostgreSQL server that keep it from losing mail."""

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


def weaknesses(connection: Connection) -> list[str]:
    """The settings that may cost mail, a line each."""
    return [*_weaknesses(connection)]


def _weaknesses(connection: Connection) -> Iterator[str]:
    for name, harm in _WANTED.items():
        if _setting(connection, name) == "off":
            yield f"{name} is off: {harm}"
    has_standby = connection.execute("SELECT EXISTS (SELECT FROM pg_stat_replication)").fetchone()
    if has_standby and has_standby[0] and not _setting(connection, "synchronous_standby_names"):
        yield _NO_STANDBY


def _setting(connection: Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    return str(row[0]) if row else ""
