"""The memory of what peers have brought, in PostgreSQL; see `mta.spool.taken`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from mta.spool.postgres.rows import counted
from mta.spool.postgres.server import Connection
from mta.spool.rows import Arrival
from mta.spool.taken import KEPT, MAX_PURGED, PURGE_PAUSE, keys_of, only_new

_REMEMBER = """
INSERT INTO taken (key, at, message) SELECT unnest(%s::text[]), %s, %s
ON CONFLICT DO NOTHING RETURNING key
"""
_PURGE = """
WITH purged AS (
    DELETE FROM taken WHERE key IN (
        SELECT key FROM taken WHERE at < %s LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING key
)
SELECT count(*) FROM purged
"""


class PostgresTakenMail:
    """The memory of all nodes, through the connection that commits.

    `now`: seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._purged = 0.0

    def sift(self, connection: Connection, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
        """Return the messages without the recipients that have them already.

        One without recipients may be left.  What is left is remembered.  Others that bring the same
        at this moment wait for our commit.
        """
        if not any(arrival.origin.is_remembered for arrival in arrivals):
            return arrivals
        now = self._now()
        sifted = [self._sifted(connection, arrival, now) for arrival in arrivals]
        if abs(now - self._purged) >= PURGE_PAUSE:
            purged = counted(connection.execute(_PURGE, (int(now) - KEPT, MAX_PURGED)))
            self._purged = now if purged < MAX_PURGED else 0.0
        return sifted

    def _sifted(self, connection: Connection, arrival: Arrival, now: float) -> Arrival:
        if not arrival.origin.is_remembered:
            return arrival
        keys = sorted({*keys_of(arrival)})
        added = connection.execute(_REMEMBER, (keys, int(now), arrival.number))
        return only_new(arrival, {key for (key,) in added.fetchall()})


def known(connection: Connection, keys: Collection[str]) -> Collection[str]:
    """Those of these keys that there are."""
    query = "SELECT key FROM taken WHERE key = ANY(%s::text[])"
    return [key for (key,) in connection.execute(query, ([*keys],)).fetchall()]


def remembered(connection: Connection) -> list[tuple[str, int]]:
    """All keys that there are, with their times."""
    return connection.execute("SELECT key, at FROM taken").fetchall()


def restore_taken(connection: Connection, taken: Collection[tuple[str, int]]) -> None:
    """Remember what another spool did."""
    keys, times = [key for key, _ in taken], [at for _, at in taken]
    connection.execute(
        "INSERT INTO taken SELECT key, at, 0 FROM unnest(%s::text[], %s::bigint[]) AS new (key, at)"
        " ON CONFLICT DO NOTHING",
        (keys, times),
    )
