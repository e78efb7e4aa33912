"""Owners, what dead ones left, and the clock, as rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import astuple

from mta.spool import queue_id
from mta.spool.clock import Reading, jump
from mta.spool.rows import ids, listed
from mta.spool.schema import Hold

# Owners that ended in attempts for a message, after which it is put on hold.  One more, where the
# last of them tried others as well, any of which may have been the cause, or none.
MAX_DEATHS = 2
# Seconds before a message is tried that an owner died on: all others go first, and where processes
# die one after the other, whatever the reason, it is not tried, and so not blamed.
SUSPECT_DELAY = 5.0
DEATHS = "the program ended twice or more while it tried this message"  # the reason to hold it


# --- signs of life -----------------------------------------------------------------


def register(connection: sqlite3.Connection, owner: int) -> None:
    """Make an owner known."""
    connection.execute("INSERT OR IGNORE INTO owner VALUES (?, 0)", (owner,))


def beat(connection: sqlite3.Connection, owner: int) -> bool:
    """Show that an owner lives; returns whether it was known."""
    return bool(
        connection.execute("UPDATE owner SET beat = beat + 1 WHERE id = ?", (owner,)).rowcount
    )


def beats(connection: sqlite3.Connection) -> dict[int, int]:
    """The beats of each owner, counted."""
    return dict(connection.execute("SELECT id, beat FROM owner").fetchall())


# --- what owners have leased -------------------------------------------------------

_NEXT_OWNER = "SELECT min(owner) FROM message WHERE due = 9e999 AND owner > ?"  # one seek each


def owners_of_messages(connection: sqlite3.Connection) -> list[int]:
    """The owners that have leased something."""
    found: list[int] = []
    row = connection.execute(_NEXT_OWNER, (-1,)).fetchone()
    while row[0] is not None:
        found.append(row[0])
        row = connection.execute(_NEXT_OWNER, row).fetchone()
    return found


def leased(connection: sqlite3.Connection, owner: int) -> list[int]:
    """The ids of the messages that an owner has leased."""
    return ids(
        connection.execute("SELECT id FROM message WHERE due = 9e999 AND owner = ?", (owner,))
    )


def free_leased(
    connection: sqlite3.Connection,
    owner: int,
    now: float,
    incoming: Collection[int],
    only: int | None = None,
) -> set[int]:
    """Free what a dead owner had leased; returns the ids.

    `only`: one of these messages, and no other.  `incoming`: the ids of files that it had begun.
    Those without a message are leftovers.
    """
    connection.execute(
        """
        INSERT OR IGNORE INTO leftover SELECT value FROM json_each(?)
        WHERE NOT EXISTS (SELECT 1 FROM message WHERE id = value)
        """,
        (listed(incoming),),
    )
    connection.execute("DELETE FROM owner WHERE id = ?", (owner,))
    return {
        *ids(
            connection.execute(
                """
                UPDATE message
                SET owner = NULL, recovered = 1, due = CASE WHEN on_hold THEN 9e999 ELSE ?1 END
                WHERE due = 9e999 AND owner = ?2 AND ifnull(?3, id) = id RETURNING id
                """,
                (now, owner, only),
            )
        )
    }


def make_released_due(connection: sqlite3.Connection, owner: int, now: float, limit: int) -> int:
    """Make due what a dead owner had released for later.

    Returns how many messages it was, `limit` at most.
    """
    return connection.execute(
        """
        UPDATE message
        SET released_by = NULL, due = CASE WHEN on_hold THEN 9e999 ELSE min(due, ?) END
        WHERE id IN (SELECT id FROM message WHERE released_by = ? LIMIT ?)
        """,
        (now, owner, limit),
    ).rowcount


def count_death(connection: sqlite3.Connection, numbers: Collection[int], now: float) -> list[int]:
    """Count the death of an owner against the messages that it tried.

    Those on which too many died are put on hold, and returned; the others are tried later
    than all else.
    """
    wanted = listed(numbers)
    limit = MAX_DEATHS if len(numbers) == 1 else MAX_DEATHS + 1
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
            UPDATE message SET on_hold = ?, due = 9e999, reason = ?
            WHERE deaths >= ? AND NOT on_hold AND id IN (SELECT value FROM json_each(?))
            RETURNING id
            """,
            (Hold.SUSPECT, DEATHS, limit, wanted),
        )
    )


# --- the clock ---------------------------------------------------------------------

# A row that is damaged tells nothing.
_LAST_LOOK = """
SELECT wall, uptime, CASE WHEN boot = ?1 THEN boot ELSE 'another' END FROM clock
WHERE typeof(wall) = 'real' AND wall BETWEEN 0 AND ?2
    AND typeof(uptime) = 'real' AND uptime BETWEEN 0 AND ?2
"""


def set_clock(connection: sqlite3.Connection, reading: Reading) -> float:
    """Note the time; returns the seconds by which the wall clock jumped.

    What waits stays due as long as it was, and no message is older for it.  What a clock that
    jumped forward makes due is tried early, which does no harm.
    """
    row = connection.execute(_LAST_LOOK, (reading.boot, queue_id.MAX_MOMENT)).fetchone()
    jumped = jump(Reading(*row), reading) if row else 0.0
    if jumped:
        connection.execute(
            "UPDATE message SET shift = shift + ?1, due = due + min(?1, 0.0)", (jumped,)
        )
        connection.execute(
            "UPDATE recipient SET offered = offered + min(?, 0.0) WHERE state = 'held'", (jumped,)
        )
    connection.execute("REPLACE INTO clock VALUES (1, ?, ?, ?)", astuple(reading))
    return jumped
