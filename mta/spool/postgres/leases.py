"""Leases and due times of messages, as rows of PostgreSQL.

A message that is leased, or on hold, has an infinite `due`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mta.queued import EVERYWHERE
from mta.spool.leases import Waiting
from mta.spool.postgres.arrays import Numbers
from mta.spool.postgres.loading import MESSAGE, MessageRow
from mta.spool.postgres.rows import ids, moment
from mta.spool.postgres.server import Connection
from mta.spool.schema import Hold

_SUSPECTS = 0x6D746132  # the advisory lock for claims of suspects: "mta2"

# Rows that another process claims at this moment are skipped, and those that are claimed are found
# once: a subquery with IN might be run again.  They are found by their place in the table (ctid),
# which costs the same however many there are.  A row that has moved since is left to the next look.
_FREE = "(SELECT ctid, * FROM schedule WHERE owner IS NULL AND on_hold = 0 AND deaths = 0)"
# The same for messages that are looked up by their ids: the sum keeps the planner from reading the
# whole index on what is due instead, which has the same condition.
_FREE_BY_ID = "(SELECT ctid, * FROM schedule WHERE owner IS NULL AND on_hold + deaths = 0)"
_CLAIM = """
WITH picked AS MATERIALIZED (
    SELECT s.id, s.ctid, {rank} AS rank FROM {source} WHERE {begin} AND {condition}
    ORDER BY {order} LIMIT %(limit)s FOR UPDATE OF s SKIP LOCKED
)
UPDATE schedule AS s SET owner = %(owner)s, due = 'Infinity', released_by = NULL
FROM picked LEFT JOIN message AS m ON m.id = picked.id
WHERE s.ctid = picked.ctid RETURNING picked.rank, {message}
"""

# There are few suspects, and may be very many others that wait: so the suspects come first.
_SUSPECTED = """
WITH suspect AS MATERIALIZED (
    SELECT * FROM schedule WHERE deaths > 0 AND owner IS NULL AND on_hold = 0
)
SELECT s.id FROM {source} WHERE {condition} ORDER BY {order} LIMIT 1
"""
_SUSPECT_TRIED = "EXISTS (SELECT FROM schedule WHERE deaths > 0 AND owner IS NOT NULL)"
_CLAIM_SUSPECT = f"""
UPDATE schedule SET owner = %(owner)s, due = 'Infinity', released_by = NULL
WHERE id = %(id)s AND owner IS NULL AND on_hold = 0 AND deaths > 0 AND NOT {_SUSPECT_TRIED}
RETURNING id
"""  # noqa: S608 (our own words)


@dataclass(frozen=True, slots=True)
class Claimed:
    """The messages that were leased, in order.  `place` is that of the last one.

    `rows` are those of most of them, by number.
    """

    numbers: Sequence[int]
    place: Any = None
    rows: Mapping[int, MessageRow] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice of messages to claim: a condition and its values.

    They are read from `source`, where `free` are those that may be leased.  `order` is what they
    are claimed by, `rank` the first of that; `begin` leaves out what lies before a place, and
    `first` is a place before all.  A look that finds none got to `horizon`: as a rule, what comes
    later lies behind it.
    """

    condition: str
    values: Mapping[str, Any]
    order: str = "s.id"
    rank: str = "s.id"
    begin: str = "s.id >= %(start)s"
    first: Any = 0
    horizon: Any = None
    free: str = _FREE
    source: str = "{free} AS s"

    def claim(
        self, connection: Connection, owner: int, limit: int, start: Any, *, suspects: bool
    ) -> Claimed:
        """Lease those that are free, at most `limit`, from a place on.

        Of those that an owner died on there is one at most, of all that are tried anywhere.
        """
        suspected = self._suspect(connection, owner) if suspects and limit else []
        values = {
            **self.values,
            "owner": owner,
            "limit": limit - len(suspected),
            "start": self.first if start is None else start,
        }
        cursor = connection.cursor(binary=True)
        found = sorted(cursor.execute(self.query(), values).fetchall())
        rows = {number: (number, *row) for _, number, *row in found}
        return Claimed([*rows, *suspected], self.place(found), rows)

    def place(self, found: Sequence[tuple[Any, ...]]) -> Any:
        """The place of the last one that was leased.

        `found` has rows that begin with rank and id.
        """
        return found[-1][0] if found else self.horizon

    def _suspect(self, connection: Connection, owner: int) -> list[int]:
        """Lease one that an owner died on, unless another is tried."""
        row = connection.execute(self._query(_SUSPECTED, "suspect"), self.values).fetchone()
        if row is None:
            return []
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SUSPECTS,))
        return ids(connection.execute(_CLAIM_SUSPECT.encode(), {"id": row[0], "owner": owner}))

    def query(self) -> bytes:
        """The statement that leases them."""
        return self._query(_CLAIM, self.free)

    def _query(self, statement: str, free: str) -> bytes:
        source = self.source.format(free=free)
        return statement.format(
            source=source,
            condition=self.condition,
            order=self.order,
            rank=self.rank,
            begin=self.begin,
            message=MESSAGE,
        ).encode()


MAX_LATE = 5.0  # seconds: by so much two nodes' clocks may differ, or a commit be late


def due(now: float) -> Choice:
    """The messages that are due, the longest overdue first."""
    first, horizon = float("-inf"), now - MAX_LATE
    begin = "s.due >= %(start)s"
    return Choice("s.due <= %(now)s", {"now": now}, "s.due", "s.due", begin, first, horizon)


def free(numbers: Sequence[int]) -> Choice:
    """Those of these messages that may be leased."""
    values = {"numbers": Numbers(numbers)}
    return Choice("s.id = ANY(%(numbers)s)", values, free=_FREE_BY_ID)


# What waits for a peer, of each message once.  OFFSET keeps the planner from other joins: the index
# on held recipients is to be read in order, and no further, and each message looked up by its id.
_HELD_SOURCE = """
recipient AS r CROSS JOIN LATERAL (
    SELECT * FROM {free} AS f WHERE f.id = r.message OFFSET 0
) AS s
"""
_HELD = """
r.state = 'held' AND r.peer = %(peer)s AND {r_fits} AND NOT EXISTS (
    SELECT FROM recipient AS e WHERE e.message = {message}
        AND (e.offered, e.number) < (r.offered, r.number)
        AND e.state = 'held' AND e.peer = %(peer)s AND {e_fits} OFFSET 0
)
"""
_FITS = "({0}.held_domain = ANY(%(exact)s::text[]) OR {0}.held_domain LIKE ANY(%(below)s::text[]))"


def _held(peer: str, domains: Collection[str], message: str) -> tuple[str, Mapping[str, Any]]:
    """A condition on held mail, and its values."""
    fits = "true" if EVERYWHERE in domains else _FITS
    condition = _HELD.format(message=message, r_fits=fits.format("r"), e_fits=fits.format("e"))
    values = {
        "peer": peer,
        "exact": [each for each in domains if not each.startswith(".")],
        "below": [f"%{_escaped(each)}" for each in domains if each.startswith(".")],
    }
    return condition, values


def _escaped(text: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", text)


@dataclass(frozen=True, slots=True)
class HeldChoice(Choice):
    """A choice of mail for a peer, the least recently offered first."""

    order: str = "r.offered, r.message"
    rank: str = "r.offered"
    begin: str = "(r.offered, r.message) >= (0, %(start)s)"
    free: str = _FREE_BY_ID
    source: str = _HELD_SOURCE

    def place(self, found: Sequence[tuple[Any, ...]]) -> Any:
        """The id of the last one that is new to the peer.

        All that comes is new, and lies behind it.
        """
        return max((number for offered, number, *_ in found if not offered), default=None)


def held(waiting: Waiting) -> Choice:
    """The messages that a peer may be offered, the least recent first."""
    # By `s.id`, others of its recipients are looked at where the message is known to be free.
    condition, values = _held(waiting.peer, waiting.domains, "s.id")
    values = {**values, "before": waiting.before}
    return HeldChoice(f"r.offered < %(before)s AND {condition}", values)


def note_offer(connection: Connection, peer: str, numbers: Collection[int], now: float) -> None:
    """Note that a peer is offered these messages now."""
    connection.execute(
        """
        UPDATE recipient SET offered = %s
        WHERE message = ANY(%s) AND state = 'held' AND peer = %s
        """,
        (now, Numbers(numbers), peer),
    )


def count_held(
    connection: Connection, peer: str, domains: Collection[str], limit: int | None
) -> int:
    """Count the messages that wait for a peer, up to `limit`."""
    condition, values = _held(peer, domains, "r.message")
    query = (
        f"SELECT count(*) FROM (SELECT FROM recipient AS r WHERE {condition}"  # noqa: S608
        " LIMIT %(limit)s) AS found"
    )
    row = connection.execute(query.encode(), {**values, "limit": limit}).fetchone()
    assert row is not None
    return int(row[0])


# OFFSET keeps the planner from joining all peers with all that is held: a process may have
# thousands of links, and asks often.
PEERS_WITH_MAIL = """
SELECT name FROM unnest(%s::text[]) AS wanted (name) WHERE EXISTS (
    SELECT FROM recipient AS r CROSS JOIN LATERAL (
        SELECT FROM schedule WHERE id = r.message AND owner IS NULL AND on_hold = 0 OFFSET 0
    ) AS s WHERE r.state = 'held' AND r.peer = name OFFSET 0
)
"""


def peers_with_mail(connection: Connection, peers: Collection[str]) -> list[str]:
    """Those of these peers for which a free message waits."""
    found = connection.execute(PEERS_WITH_MAIL, (list(peers),))
    return [peer for (peer,) in found]


_NEXT = "SELECT min(due) FROM schedule WHERE owner IS NULL AND on_hold = 0 AND {}"
_NEXT_PLAIN = _NEXT.format("deaths = 0 AND due >= %s")
_NEXT_SUSPECT = _NEXT.format(f"deaths > 0 AND NOT {_SUSPECT_TRIED}")


def next_due(connection: Connection, start: float | None, *, suspects: bool) -> float | None:
    """The due time of the first message to be tried.  `start`: no earlier ones."""
    begin = float("-inf") if start is None else start
    found = [connection.execute(_NEXT_PLAIN.encode(), (begin,)).fetchone()]
    if suspects:
        found.append(connection.execute(_NEXT_SUSPECT.encode()).fetchone())
    return min((due for row in found if row for due in row if due is not None), default=None)


# Here and in `recalled`, IS NOT DISTINCT FROM keeps the planner from the index on owners, which
# serves = alone: each message is found by its id.
def release(connection: Connection, dues: Mapping[int, float], owner: int) -> None:
    """End leases that are still the owner's, with new due times."""
    connection.execute(
        """
        UPDATE schedule SET owner = NULL, released_by = owner,
            due = CASE WHEN on_hold <> 0 THEN 'Infinity' ELSE new.due END
        FROM json_to_recordset(%s::json) AS new (id bigint, due double precision)
        WHERE schedule.id = new.id AND owner IS NOT DISTINCT FROM %s
        """,
        (json.dumps([{"id": number, "due": moment(at)} for number, at in dues.items()]), owner),
    )


def recalled(connection: Connection, numbers: Collection[int], owner: int) -> list[int]:
    """Those of an owner's messages that are gone, on hold, or another's."""
    return ids(
        connection.execute(
            """
            SELECT id FROM unnest(%s::bigint[]) AS wanted (id) WHERE NOT EXISTS (
                SELECT FROM schedule
                WHERE id = wanted.id AND owner IS NOT DISTINCT FROM %s AND on_hold = 0
            )
            """,
            (Numbers(numbers), owner),
        )
    )


def hold_damaged(connection: Connection, reasons: Mapping[int, str]) -> None:
    """Put damaged messages on hold, leased or not, for these reasons."""
    connection.execute(
        """
        UPDATE schedule SET owner = NULL, due = 'Infinity', on_hold = %s, reason = new.reason
        FROM json_to_recordset(%s::json) AS new (id bigint, reason text)
        WHERE schedule.id = new.id
        """,
        (
            int(Hold.DAMAGED),
            json.dumps([{"id": number, "reason": text} for number, text in reasons.items()]),
        ),
    )
