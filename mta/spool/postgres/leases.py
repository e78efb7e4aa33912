"""Leases and due times of messages, as rows of PostgreSQL.

A message that is leased, or on hold, has an infinite `due`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mta.queued import EVERYWHERE
from mta.spool.postgres.rows import ids, moment
from mta.spool.postgres.server import Connection
from mta.spool.schema import Hold

_SUSPECTS = 0x6D746132  # the advisory lock for claims of suspects: "mta2"

# Rows that another process claims at this moment are skipped, and those that are claimed are found
# once: a subquery with IN might be run again.
_CLAIM = """
WITH picked AS MATERIALIZED (
    SELECT s.id, {order} AS rank FROM {source}
    WHERE s.owner IS NULL AND s.on_hold = 0 AND {suspicion} AND {condition}
    ORDER BY {order} LIMIT %(limit)s FOR UPDATE OF s SKIP LOCKED
)
UPDATE schedule SET owner = %(owner)s, due = 'Infinity', released_by = NULL
FROM picked WHERE schedule.id = picked.id RETURNING picked.rank, schedule.id
"""
_SUSPECTED = "SELECT FROM {source} WHERE s.deaths > 0 AND s.owner IS NULL AND {condition} LIMIT 1"
_SUSPECT_TRIED = "EXISTS (SELECT FROM schedule WHERE deaths > 0 AND owner IS NOT NULL)"


class Choice:
    """A choice of messages to claim: a condition and its values."""

    def __init__(
        self, condition: str, order: str, values: Mapping[str, Any], source: str = "schedule AS s"
    ) -> None:
        self._parts = {"source": source, "condition": condition, "order": order}
        self._values = values

    def claim(self, connection: Connection, owner: int, limit: int, *, suspects: bool) -> list[int]:
        """Lease those that are free, at most `limit`.

        Returns their ids, in order.  Of those that an owner died on there is one at most, of all
        that are tried anywhere.
        """
        suspected = self._suspect(connection, owner) if suspects and limit else []
        values = {**self._values, "owner": owner, "limit": limit - len(suspected)}
        query = _CLAIM.format(**self._parts, suspicion="s.deaths = 0")
        found = connection.execute(query.encode(), values).fetchall()
        return [*(number for *_, number in sorted(found)), *suspected]

    def _suspect(self, connection: Connection, owner: int) -> list[int]:
        """Lease one that an owner died on, unless another is tried."""
        values = {**self._values, "owner": owner, "limit": 1}
        query = _SUSPECTED.format(**self._parts)
        if connection.execute(query.encode(), values).fetchone() is None:
            return []
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SUSPECTS,))
        query = _CLAIM.format(**self._parts, suspicion=f"s.deaths > 0 AND NOT {_SUSPECT_TRIED}")
        return [number for _, number in connection.execute(query.encode(), values)]


def due(now: float) -> Choice:
    """The messages that are due, the longest overdue first."""
    return Choice("s.due <= %(now)s", "s.due", {"now": now})


def free(numbers: Sequence[int]) -> Choice:
    """Those of these messages that may be leased."""
    return Choice("s.id = ANY(%(numbers)s)", "s.id", {"numbers": list(numbers)})


# What waits for a peer in the domains, of which '.' is `EVERYWHERE`.  OFFSET keeps the planner from
# making a join of it: the index on held recipients is to be read in order, and no further.
_HELD = f"""
{{r}}.state = 'held' AND {{r}}.peer = %(peer)s AND EXISTS (
    SELECT FROM unnest(%(domains)s::text[]) AS wanted (name)
    WHERE name = {{r}}.held_domain OR name = '{EVERYWHERE}'
        OR name LIKE '.%%' AND right({{r}}.held_domain, length(name)) = name OFFSET 0
)
"""
_FIRST_HELD = f"""
{_HELD.format(r="r")} AND NOT EXISTS (
    SELECT FROM recipient AS e WHERE e.message = r.message AND e.number < r.number
        AND {_HELD.format(r="e")} OFFSET 0
)
"""


def held(peer: str, domains: Collection[str]) -> Choice:
    """The messages that wait for a peer, oldest first."""
    source = "recipient AS r JOIN schedule AS s ON s.id = r.message"
    return Choice(_FIRST_HELD, "r.message", {"peer": peer, "domains": list(domains)}, source)


def count_held(
    connection: Connection, peer: str, domains: Collection[str], limit: int | None
) -> int:
    """Count the messages that wait for a peer, up to `limit`."""
    row = connection.execute(
        f"SELECT count(*) FROM (SELECT FROM recipient AS r WHERE {_FIRST_HELD}"  # noqa: S608
        " LIMIT %(limit)s) AS found",
        {"peer": peer, "domains": list(domains), "limit": limit},
    ).fetchone()
    assert row is not None
    return int(row[0])


def peers_with_mail(connection: Connection, peers: Collection[str]) -> list[str]:
    """Those of these peers for which a free message waits."""
    found = connection.execute(
        """
        SELECT name FROM unnest(%s::text[]) AS wanted (name) WHERE EXISTS (
            SELECT FROM recipient JOIN schedule ON id = message
            WHERE state = 'held' AND peer = name AND owner IS NULL AND on_hold = 0
        )
        """,
        (list(peers),),
    )
    return [peer for (peer,) in found]


_NEXT = "SELECT min(due) FROM schedule WHERE owner IS NULL AND on_hold = 0 AND {}"


def next_due(connection: Connection, *, suspects: bool) -> float | None:
    """The due time of the first message to be tried, if any."""
    conditions = ["deaths = 0", *([f"deaths > 0 AND NOT {_SUSPECT_TRIED}"] if suspects else ())]
    found = [connection.execute(_NEXT.format(each).encode()).fetchone() for each in conditions]
    return min((due for row in found if row for due in row if due is not None), default=None)


def release(connection: Connection, dues: Mapping[int, float], owner: int) -> None:
    """End leases that are still the owner's, with new due times."""
    connection.execute(
        """
        UPDATE schedule SET owner = NULL, released_by = owner,
            due = CASE WHEN on_hold <> 0 THEN 'Infinity' ELSE new.due END
        FROM json_to_recordset(%s::json) AS new (id bigint, due double precision)
        WHERE schedule.id = new.id AND owner = %s
        """,
        (json.dumps([{"id": number, "due": moment(at)} for number, at in dues.items()]), owner),
    )


def recalled(connection: Connection, numbers: Collection[int], owner: int) -> list[int]:
    """Those of an owner's messages that are gone, on hold, or another's."""
    return ids(
        connection.execute(
            """
            SELECT id FROM unnest(%s::bigint[]) AS wanted (id) WHERE NOT EXISTS (
                SELECT FROM schedule WHERE id = wanted.id AND owner = %s AND on_hold = 0
            )
            """,
            (list(numbers), owner),
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
