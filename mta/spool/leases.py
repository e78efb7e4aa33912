"""Leases and due times of messages, as rows of the database.

A message that is leased, or on hold, has an infinite `due`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mta.spool import queue_id
from mta.spool.rows import ids, listed
from mta.spool.schema import Hold

NEVER = float("inf")  # the `due` of a message that is leased, or on hold


# --- what may be leased --------------------------------------------------------------

# The messages that an owner died on.  The index has them, so that neither this nor what chooses
# among all others reads the table: a page of it that is damaged harms the messages on it alone.
_DIED_ON = "SELECT id FROM message INDEXED BY suspect WHERE deaths > 0"


def due(
    connection: sqlite3.Connection,
    now: float,
    limit: int,
    unreadable: Collection[int] = (),
    *,
    suspects: bool = True,
) -> list[int]:
    """The ids of messages that are due, without those that are `unreadable`.

    Of the messages that an owner died on there is one at most, see `suspect`, and only where
    `suspects` may be tried.
    """
    found = ids(
        connection.execute(
            f"""
            SELECT id FROM message WHERE due <= ? AND id NOT IN ({_DIED_ON})
                AND id NOT IN (SELECT value FROM json_each(?))
            ORDER BY due LIMIT ?
            """,  # noqa: S608 (our own words)
            (now, listed(unreadable), limit),
        )
    )
    suspected = suspect(connection, now) if suspects else []
    return [*found[: limit - len(suspected)], *suspected]


# Whether some owner tries a suspect now.
_SUSPECT_TRIED = """
EXISTS (
    SELECT 1 FROM message INDEXED BY suspect WHERE deaths > 0 AND due = 9e999 AND owner > 0
)
"""


def suspect(connection: sqlite3.Connection, now: float) -> list[int]:
    """The id of a message that an owner died on, if any.

    All processes together try one at a time.
    """
    return ids(
        connection.execute(
            f"""
            SELECT id FROM message WHERE deaths > 0 AND due <= ? AND NOT {_SUSPECT_TRIED}
            ORDER BY due LIMIT 1
            """,  # noqa: S608 (our own words)
            (now,),
        )
    )


def without_suspects(
    connection: sqlite3.Connection, numbers: Sequence[int], *, one: bool = True
) -> list[int]:
    """Those of these messages that may be tried together.

    Of those that an owner died on there is `one` at most, or none.
    """
    found = connection.execute(
        f"""
        SELECT id, {_SUSPECT_TRIED} FROM message INDEXED BY suspect
        WHERE deaths > 0 AND id IN (SELECT value FROM json_each(?)) ORDER BY id
        """,  # noqa: S608 (our own words)
        (listed(numbers),),
    ).fetchall()
    may_go = found[:1] if one and found and not found[0][1] else []
    waiting = {number for number, _ in found[len(may_go) :]}
    return [number for number in numbers if number not in waiting]


def free(connection: sqlite3.Connection, numbers: Collection[int]) -> list[int]:
    """Those of these messages that may be leased, in that order."""
    return ids(
        connection.execute(
            """
            SELECT message.id FROM json_each(?) CROSS JOIN message ON message.id = value
            WHERE owner IS NULL AND NOT on_hold ORDER BY key
            """,
            (listed(numbers),),
        )
    )


def next_due(connection: sqlite3.Connection, *, suspects: bool = True) -> float | None:
    """The due time of the first message to be tried, if any."""
    query = "SELECT due FROM message WHERE due >= -9e999 AND {} ORDER BY due LIMIT 1"
    found = connection.execute(query.format(f"id NOT IN ({_DIED_ON})")).fetchall()
    if suspects:
        found += connection.execute(query.format(f"deaths > 0 AND NOT {_SUSPECT_TRIED}")).fetchall()
    times = [due for (due,) in found if isinstance(due, float) and due < NEVER]
    return min(times, default=None)


# --- what waits for a peer -------------------------------------------------------------

# What waits for peer :peer in the domains :domains, where '.' is `EVERYWHERE`.
_HELD = """
{r}.state = 'held' AND {r}.peer = :peer
    AND EXISTS (
        SELECT 1 FROM json_each(:domains)
        WHERE value IN ({r}.held_domain, '.')
            OR value LIKE '.%' AND substr({r}.held_domain, -length(value)) = value
    )
"""
# Conditions on the message of a recipient: it may be leased; it may, and no owner died on it.
_FREE = "(SELECT owner IS NULL AND NOT on_hold FROM message WHERE id = message)"
_PROVED = "(SELECT owner IS NULL AND NOT on_hold AND NOT deaths FROM message WHERE id = message)"
# There are few of these, and may be very many others that wait: so they are looked up first.
_SUSPECTS = "(SELECT id FROM message WHERE deaths > 0 AND owner IS NULL AND NOT on_hold)"
_HELD_RECIPIENT = _HELD.format(r="recipient")
_OFFERED_FIRST = f"""
SELECT message FROM recipient
WHERE {_HELD_RECIPIENT} AND recipient.offered < :before AND {_PROVED}
    AND NOT EXISTS (
        SELECT 1 FROM recipient AS other WHERE other.message = recipient.message
            AND (other.offered, other.number) < (recipient.offered, recipient.number)
            AND {_HELD.format(r="+other")}
    )
ORDER BY recipient.offered, recipient.message LIMIT :limit
"""  # noqa: S608 (our own words)
_SUSPECT_OFFERED = f"""
SELECT message FROM recipient
WHERE {_HELD_RECIPIENT} AND recipient.offered < :before
    AND message IN {_SUSPECTS} AND NOT {_SUSPECT_TRIED}
LIMIT 1
"""  # noqa: S608 (our own words)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The mail that a peer may be offered.

    That is what waits for it in these domains, and that it was not offered at `before` or later:
    seconds since the epoch.
    """

    peer: str
    domains: Collection[str]
    before: float


def offer(
    connection: sqlite3.Connection, waiting: Waiting, limit: int, now: float, *, suspects: bool
) -> list[int]:
    """Choose free messages that are offered to a peer now.

    What it was never offered comes first, then what it was offered longest ago.  A plus in front of
    a column keeps the planner from its index, which would be read to its end.  Of those that an
    owner died on there is one at most, the last, and only where `suspects` may be tried.
    """
    values = {
        "peer": waiting.peer,
        "domains": listed(waiting.domains),
        "before": waiting.before,
        "limit": limit,
    }
    suspected = ids(connection.execute(_SUSPECT_OFFERED, values)) if suspects else []
    found = ids(connection.execute(_OFFERED_FIRST, values))
    chosen = [*found[: limit - len(suspected)], *suspected]
    connection.execute(
        """
        UPDATE recipient SET offered = ? WHERE message IN (SELECT value FROM json_each(?))
            AND +state = 'held' AND +peer = ?
        """,
        (now, listed(chosen), waiting.peer),
    )
    return chosen


def count_held(
    connection: sqlite3.Connection, peer: str, domains: Collection[str], limit: int
) -> int:
    """Count the messages that wait for a peer, up to `limit`."""
    found = connection.execute(
        f"""
        SELECT count(*) FROM (
            SELECT DISTINCT message FROM recipient WHERE {_HELD_RECIPIENT} LIMIT :limit
        )
        """,  # noqa: S608 (our own words)
        {"peer": peer, "domains": listed(domains), "limit": limit},
    )
    count: int = found.fetchone()[0]
    return count


def peers_with_mail(connection: sqlite3.Connection, peers: Collection[str]) -> list[str]:
    """Those of these peers for which a free message waits."""
    found = connection.execute(
        f"""
        SELECT value FROM json_each(?) WHERE EXISTS (
            SELECT 1 FROM recipient WHERE state = 'held' AND peer = value AND {_FREE}
        )
        """,  # noqa: S608 (our own words)
        (json.dumps([*peers]),),
    )
    return [peer for (peer,) in found]


# --- leases ------------------------------------------------------------------------------


def lease(connection: sqlite3.Connection, numbers: Sequence[int], owner: int) -> None:
    """Give messages to an owner.

    Raises sqlite3.DatabaseError where one is not free: the index that named it is wrong, and would
    name it again and again.
    """
    leased = connection.execute(
        """
        UPDATE message SET owner = ?, due = 9e999, released_by = NULL
        WHERE id IN (SELECT value FROM json_each(?)) AND owner IS NULL AND NOT on_hold
        """,
        (owner, listed(numbers)),
    )
    if leased.rowcount != len(numbers):
        error = sqlite3.DatabaseError("an index names messages that are not free")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT_INDEX
        raise error


def release(connection: sqlite3.Connection, dues: Sequence[tuple[int, float]], owner: int) -> None:
    """End leases that are still the owner's, with new due times."""
    connection.execute(
        """
        UPDATE message
        SET owner = NULL, released_by = owner,
            due = CASE WHEN on_hold THEN 9e999 ELSE new.value ->> 1 END
        FROM json_each(?) AS new
        WHERE message.id = new.value ->> 0 AND owner = ?
        """,
        (json.dumps(dues), owner),
    )


def recalled(connection: sqlite3.Connection, numbers: Collection[int], owner: int) -> list[int]:
    """Those of an owner's messages that are gone, on hold, or another's."""
    return ids(
        connection.execute(
            """
            SELECT value FROM json_each(?) WHERE NOT EXISTS (
                SELECT 1 FROM message WHERE id = value AND owner = ? AND NOT on_hold
            )
            """,
            (listed(numbers), owner),
        )
    )


# --- what can't be tried -------------------------------------------------------------------


def hold_damaged(connection: sqlite3.Connection, reasons: Mapping[int, str]) -> None:
    """Put damaged messages on hold, leased or not, for these reasons."""
    connection.execute(
        """
        UPDATE message SET owner = NULL, due = 9e999, on_hold = ?, reason = new.value
        FROM json_each(?) AS new WHERE message.id = CAST(new.key AS INTEGER)
        """,
        (Hold.DAMAGED, json.dumps(reasons)),
    )


def undated(connection: sqlite3.Connection) -> dict[int, str]:
    """The ids of messages whose `due` is no time, with reasons."""
    found = connection.execute(
        """
        SELECT id, substr(quote(due), 1, 60) FROM message WHERE due IS NULL
            OR (due > :last AND due < 9e999) OR due > 9e999
        """,
        {"last": queue_id.MAX_MOMENT},
    )
    return {number: f"its due time is {text}" for number, text in found}
