"""Whose a message is, and when it is tried: leases, due times, owners and the clock, as rows.

A message that is leased, or on hold, has an infinite `due`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple
from enum import IntEnum

from mta.spool import queue_id
from mta.spool.clock import Reading, jump
from mta.spool.rows import ids, listed

NEVER = float("inf")  # the `due` of a message that is leased, or on hold
# Of owners, in attempts for a message: then it is kept.  One more, where others were tried as
# well at the last of them, which may have had no cause in any message.
MAX_DEATHS = 2
# Seconds before a message is tried that an owner died on: all others go first, and where processes
# die one after the other, whatever the reason, it is not tried, and so not blamed.
SUSPECT_DELAY = 5.0


class Hold(IntEnum):
    """Why a message is kept: column `on_hold`."""

    NO = 0
    BY_HAND = 1
    SUSPECT = 2
    DAMAGED = 3


def due(
    connection: sqlite3.Connection,
    now: float,
    limit: int,
    unreadable: Collection[int] = (),
    *,
    suspects: bool = True,
) -> list[int]:
    """The ids of messages whose time has come, but for those that are `unreadable`.

    Of the messages that an owner died on there is one at most, see `suspect`, and only where
    `suspects` may be tried.
    """
    found = ids(
        connection.execute(
            """
            SELECT id FROM message WHERE due <= ? AND deaths = 0
                AND id NOT IN (SELECT value FROM json_each(?))
            ORDER BY due LIMIT ?
            """,
            (now, listed(unreadable), limit),
        )
    )
    suspected = suspect(connection, now) if suspects else []
    return [*found[: limit - len(suspected)], *suspected]


def suspect(connection: sqlite3.Connection, now: float) -> list[int]:
    """The id of a message that an owner died on and that may be tried: one at a time, of all."""
    return ids(
        connection.execute(
            f"""
            SELECT id FROM message WHERE deaths > 0 AND due <= ? AND NOT {_SUSPECTED}
            ORDER BY due LIMIT 1
            """,  # noqa: S608 (our own words)
            (now,),
        )
    )


# Whether some owner tries one now.
_SUSPECTED = "EXISTS (SELECT 1 FROM message WHERE deaths > 0 AND due = 9e999 AND owner > 0)"


def without_suspects(
    connection: sqlite3.Connection, numbers: Sequence[int], *, one: bool = True
) -> list[int]:
    """Those of these messages that may be tried together: `one` suspect at most, or none."""
    found = connection.execute(
        f"""
        SELECT id, {_SUSPECTED} FROM message
        WHERE deaths > 0 AND id IN (SELECT value FROM json_each(?)) ORDER BY id
        """,  # noqa: S608 (our own words)
        (listed(numbers),),
    ).fetchall()
    may_go = found[:1] if one and found and not found[0][1] else []
    waiting = {number for number, _ in found[len(may_go) :]}
    return [number for number in numbers if number not in waiting]


# What waits for peer :peer in the domains :domains.
_HELD = """
SELECT DISTINCT message FROM recipient
WHERE state = 'held' AND peer = :peer
    AND EXISTS (
        SELECT 1 FROM json_each(:domains)
        WHERE value IN (held_domain, '.')
            OR value LIKE '.%' AND substr(held_domain, -length(value)) = value
    )
"""
_FREE = "(SELECT owner IS NULL AND NOT on_hold FROM message WHERE id = message)"


def held(
    connection: sqlite3.Connection, peer: str, domains: Collection[str], limit: int
) -> list[int]:
    """The ids of messages that nobody works on and that wait for a peer, oldest first."""
    return ids(
        connection.execute(
            f"{_HELD} AND {_FREE} ORDER BY message LIMIT :limit",
            {"peer": peer, "domains": listed(domains), "limit": limit},
        )
    )


def count_held(
    connection: sqlite3.Connection, peer: str, domains: Collection[str], limit: int
) -> int:
    """The number of messages that wait for a peer, counted up to `limit`."""
    found = connection.execute(
        f"SELECT count(*) FROM ({_HELD} LIMIT :limit)",  # noqa: S608 (our own words)
        {"peer": peer, "domains": listed(domains), "limit": limit},
    )
    count: int = found.fetchone()[0]
    return count


def free(connection: sqlite3.Connection, numbers: Collection[int]) -> list[int]:
    """Those of these messages that nobody works on, nor holds, in that order."""
    return ids(
        connection.execute(
            """
            SELECT message.id FROM json_each(?) CROSS JOIN message ON message.id = value
            WHERE owner IS NULL AND NOT on_hold ORDER BY key
            """,
            (listed(numbers),),
        )
    )


def recalled(connection: sqlite3.Connection, numbers: Collection[int], owner: int) -> list[int]:
    """Those of an owner's messages that are gone, or on hold."""
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


def lease(connection: sqlite3.Connection, numbers: Sequence[int], owner: int) -> None:
    """Give messages to an owner."""
    connection.execute(
        """
        UPDATE message SET owner = ?, due = 9e999, put_by = NULL
        WHERE id IN (SELECT value FROM json_each(?))
        """,
        (owner, listed(numbers)),
    )


def put_aside(connection: sqlite3.Connection, reasons: Mapping[int, str]) -> None:
    """Keep damaged messages, whoever has leased them; `reasons` say what is wrong."""
    connection.execute(
        """
        UPDATE message SET owner = NULL, due = 9e999, on_hold = 3, reason = new.value
        FROM json_each(?) AS new WHERE message.id = CAST(new.key AS INTEGER)
        """,
        (json.dumps(reasons),),
    )


def undated(connection: sqlite3.Connection) -> dict[int, str]:
    """The ids of messages that nobody can say when to try, and why: their `due` is no time."""
    found = connection.execute(
        """
        SELECT id, substr(quote(due), 1, 60) FROM message WHERE due IS NULL
            OR (due > :last AND due < 9e999) OR due > 9e999
        """,
        {"last": queue_id.MAX_MOMENT},
    )
    return {number: f"its due time is {text}" for number, text in found}


def release(connection: sqlite3.Connection, dues: Sequence[tuple[int, float]], owner: int) -> None:
    """End leases that are still the owner's; each message is due at its time."""
    connection.execute(
        """
        UPDATE message
        SET owner = NULL, put_by = owner,
            due = CASE WHEN on_hold THEN 9e999 ELSE new.value ->> 1 END
        FROM json_each(?) AS new
        WHERE message.id = new.value ->> 0 AND owner = ?
        """,
        (json.dumps(dues), owner),
    )


def take_over(
    connection: sqlite3.Connection, owner: int, now: float, incoming: Collection[int]
) -> int:
    """Free what a dead owner had leased; returns how many messages.

    `incoming`: the ids of files that it had begun.  Those without a message are leftovers.
    """
    connection.execute(
        """
        INSERT OR IGNORE INTO leftover SELECT value FROM json_each(?)
        WHERE NOT EXISTS (SELECT 1 FROM message WHERE id = value)
        """,
        (listed(incoming),),
    )
    connection.execute("DELETE FROM owner WHERE id = ?", (owner,))
    return connection.execute(
        """
        UPDATE message
        SET owner = NULL, recovered = 1, due = CASE WHEN on_hold THEN 9e999 ELSE ? END
        WHERE due = 9e999 AND owner = ?
        """,
        (now, owner),
    ).rowcount


def suspects(connection: sqlite3.Connection, numbers: Collection[int], now: float) -> list[int]:
    """Count the death of an owner against the messages that it tried; returns whom it keeps.

    Those that it happened to too often are on hold, the others are tried later than all else.
    """
    wanted = listed(numbers)
    most = MAX_DEATHS if len(numbers) == 1 else MAX_DEATHS + 1
    connection.execute(
        """
        UPDATE message SET deaths = deaths + 1, due = CASE WHEN on_hold THEN 9e999 ELSE ? END
        WHERE owner IS NULL AND id IN (SELECT value FROM json_each(?))
        """,
        (now + SUSPECT_DELAY, wanted),
    )
    return ids(
        connection.execute(
            """
            UPDATE message SET on_hold = 2, due = 9e999, reason = ?
            WHERE deaths >= ? AND NOT on_hold AND id IN (SELECT value FROM json_each(?))
            RETURNING id
            """,
            ("the program ended twice or more while it tried this message", most, wanted),
        )
    )


def owners_of_messages(connection: sqlite3.Connection) -> list[int]:
    """Whoever has leased something."""
    found: list[int] = []
    row = connection.execute(_NEXT_OWNER, (-1,)).fetchone()
    while row[0] is not None:
        found.append(row[0])
        row = connection.execute(_NEXT_OWNER, row).fetchone()
    return found


_NEXT_OWNER = "SELECT min(owner) FROM message WHERE due = 9e999 AND owner > ?"  # one seek each


def leased(connection: sqlite3.Connection, owner: int) -> list[int]:
    """The ids of what an owner has leased."""
    return ids(
        connection.execute("SELECT id FROM message WHERE due = 9e999 AND owner = ?", (owner,))
    )


def bring_back(connection: sqlite3.Connection, owner: int, now: float, limit: int) -> int:
    """Make due what a dead owner had put by; returns how many, `limit` at most."""
    return connection.execute(
        """
        UPDATE message
        SET put_by = NULL, due = CASE WHEN on_hold THEN 9e999 ELSE min(due, ?) END
        WHERE id IN (SELECT id FROM message WHERE put_by = ? LIMIT ?)
        """,
        (now, owner, limit),
    ).rowcount


def next_due(connection: sqlite3.Connection, *, suspects: bool = True) -> float | None:
    """When the first message is due, of those that may be tried; None: there is none."""
    query = "SELECT due FROM message WHERE due >= -9e999 AND {} ORDER BY due LIMIT 1"
    found = connection.execute(query.format("deaths = 0")).fetchall()
    if suspects:
        found += connection.execute(query.format(f"deaths > 0 AND NOT {_SUSPECTED}")).fetchall()
    times = [due for (due,) in found if isinstance(due, float) and due < NEVER]
    return min(times, default=None)


# --- the owner, and the clock ----------------------------------------------------


def register(connection: sqlite3.Connection, owner: int) -> None:
    """Make an owner known."""
    connection.execute("INSERT OR IGNORE INTO owner VALUES (?, 0)", (owner,))


def beat(connection: sqlite3.Connection, owner: int) -> bool:
    """Show that an owner lives; returns whether nobody believed it dead."""
    return bool(
        connection.execute("UPDATE owner SET beat = beat + 1 WHERE id = ?", (owner,)).rowcount
    )


def beats(connection: sqlite3.Connection) -> dict[int, int]:
    """How often each owner has shown that it lives."""
    return dict(connection.execute("SELECT id, beat FROM owner").fetchall())


# A row that is damaged tells nothing.
_LAST_LOOK = """
SELECT wall, uptime, CASE WHEN boot = ?1 THEN boot ELSE 'another' END FROM clock
WHERE typeof(wall) = 'real' AND wall BETWEEN 0 AND ?2
    AND typeof(uptime) = 'real' AND uptime BETWEEN 0 AND ?2
"""


def set_clock(connection: sqlite3.Connection, reading: Reading) -> float:
    """Note the time; returns by how many seconds the wall clock jumped since that was done last.

    What waits stays due as long as it was, and no message is older for it.  What a clock that
    jumped forward makes due is tried early, which does no harm.
    """
    row = connection.execute(_LAST_LOOK, (reading.boot, queue_id.MAX_MOMENT)).fetchone()
    jumped = jump(Reading(*row), reading) if row else 0.0
    if jumped:
        connection.execute(
            "UPDATE message SET shift = shift + ?1, due = due + min(?1, 0.0)", (jumped,)
        )
    connection.execute("REPLACE INTO clock VALUES (1, ?, ?, ?)", astuple(reading))
    return jumped
