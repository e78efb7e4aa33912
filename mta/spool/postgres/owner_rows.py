"""Owners, and what dead ones left, as rows of PostgreSQL.

An owner lives until `alive_until`, by the clock of the database, which it puts off by its beats.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mta import __version__
from mta.spool.owner_rows import DEATHS, MAX_DEATHS, SUSPECT_DELAY
from mta.spool.postgres.rows import counted, ids
from mta.spool.postgres.schema import VERSION
from mta.spool.postgres.server import Connection
from mta.spool.schema import Hold

LIFETIME = 60  # seconds after a beat: six beats may be late

SAME_TIME = 15  # seconds: owners that beat until an outage have ended within that time

_ALIVE = f"clock_timestamp() + interval '{LIFETIME} seconds'"


@dataclass(frozen=True, slots=True)
class OwnerName:
    """An owner, as others see it."""

    number: int
    node: str
    version: str = __version__
    format: int = VERSION


# Where no process at all is alive, the database was away, and none could beat: those that were
# alive when it went get another lifetime, whichever of them, or of others, is the first to be back.
# One that an operator has set to -infinity is dead for sure.
_SPARE = f"""
UPDATE owner SET alive_until = {_ALIVE}
WHERE NOT EXISTS (SELECT FROM owner WHERE alive_until >= clock_timestamp())
    AND isfinite(alive_until)
    AND alive_until >= (SELECT max(alive_until) FROM owner) - interval '{SAME_TIME} seconds'
"""  # noqa: S608 (our own words)


def register(connection: Connection, owner: OwnerName) -> None:
    """Make an owner known."""
    connection.execute(_SPARE)
    connection.execute(
        "INSERT INTO owner (id, node, version, format, alive_until)"  # noqa: S608
        f" VALUES (%s, %s, %s, %s, {_ALIVE}) ON CONFLICT (id) DO UPDATE SET alive_until = {_ALIVE}",
        (owner.number, owner.node, owner.version, owner.format),
    )


def beat(connection: Connection, owner: OwnerName) -> bool:
    """Show that an owner lives; returns whether it was known.

    Otherwise it is registered again.
    """
    connection.execute(_SPARE)
    found = connection.execute(
        f"UPDATE owner SET alive_until = {_ALIVE} WHERE id = %s RETURNING id",  # noqa: S608
        (owner.number,),
    )
    if found.fetchone() is not None:
        return True
    register(connection, owner)
    return False


def bury(connection: Connection, ended: Collection[int]) -> list[int]:
    """Forget dead owners, and those that have `ended`; returns which.

    One that beats at this moment is seen to live.
    """
    connection.execute(_SPARE)
    return ids(
        connection.execute(
            "DELETE FROM owner WHERE alive_until < clock_timestamp() OR id = ANY(%s) RETURNING id",
            (list(ended),),
        )
    )


_UNKNOWN = """
WITH RECURSIVE lessee (id) AS (
    (SELECT min(owner) FROM schedule WHERE owner IS NOT NULL)
    UNION ALL
    SELECT (SELECT min(owner) FROM schedule WHERE owner > lessee.id)
    FROM lessee WHERE lessee.id IS NOT NULL
)
SELECT id FROM lessee WHERE id IS NOT NULL AND NOT EXISTS (
    SELECT FROM owner WHERE owner.id = lessee.id
)
"""


def unknown(connection: Connection) -> list[int]:
    """Owners that have leased something, and are believed dead."""
    return ids(connection.execute(_UNKNOWN))


def leased(connection: Connection, owners: Sequence[int]) -> list[int]:
    """The ids of the messages that owners have leased."""
    return ids(connection.execute("SELECT id FROM schedule WHERE owner = ANY(%s)", (list(owners),)))


def free_leased(connection: Connection, owners: Sequence[int], now: float) -> int:
    """Free what dead owners had leased; returns how many messages.

    What they were uploading is removed.
    """
    wanted = (list(owners),)
    connection.execute(
        "DELETE FROM chunk WHERE message IN (SELECT message FROM upload WHERE owner = ANY(%s))",
        wanted,
    )
    connection.execute("DELETE FROM upload WHERE owner = ANY(%s)", wanted)
    freed = connection.execute(
        """
        WITH freed AS (
            UPDATE schedule SET owner = NULL, recovered = true,
                due = CASE WHEN on_hold <> 0 THEN 'Infinity' ELSE %s END
            WHERE owner = ANY(%s) RETURNING id
        )
        SELECT count(*) FROM freed
        """,
        (now, list(owners)),
    )
    return counted(freed)


def make_released_due(
    connection: Connection, owners: Sequence[int], now: float, limit: int | None
) -> int:
    """Make due what dead owners had released for later.

    Returns how many messages it was, `limit` at most.
    """
    made_due = connection.execute(
        """
        WITH picked AS MATERIALIZED (
            SELECT id FROM schedule WHERE released_by = ANY(%s) LIMIT %s FOR UPDATE SKIP LOCKED
        ), due AS (
            UPDATE schedule SET released_by = NULL,
                due = CASE WHEN on_hold <> 0 OR owner IS NOT NULL THEN due ELSE least(due, %s) END
            FROM picked WHERE schedule.id = picked.id RETURNING schedule.id
        )
        SELECT count(*) FROM due
        """,
        (list(owners), limit, now),
    )
    return counted(made_due)


def count_death(connection: Connection, numbers: Collection[int], now: float) -> list[int]:
    """Count the death of an owner against the messages that it tried.

    Those on which too many died are put on hold, and returned; the others are tried later
    than all else.
    """
    limit = MAX_DEATHS if len(numbers) == 1 else MAX_DEATHS + 1
    connection.execute(
        """
        UPDATE schedule SET deaths = deaths + 1,
            due = CASE WHEN on_hold <> 0 THEN 'Infinity' ELSE %s END
        WHERE owner IS NULL AND id = ANY(%s)
        """,
        (now + SUSPECT_DELAY, list(numbers)),
    )
    return ids(
        connection.execute(
            """
            UPDATE schedule SET on_hold = %s, due = 'Infinity', reason = %s
            WHERE deaths >= %s AND on_hold = 0 AND id = ANY(%s) RETURNING id
            """,
            (int(Hold.SUSPECT), DEATHS, limit, list(numbers)),
        )
    )
