"""Messages as rows of PostgreSQL.

A batch is few statements, whatever its size: rows come as one JSON text, content as one array.
Nothing here reads a result but what is asked for, so that a batch is one round trip.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from mta.queued import Settlement
from mta.spool import origins, queue_id, rows
from mta.spool.postgres.arrays import Numbers, Octets
from mta.spool.postgres.server import Connection
from mta.spool.rows import Arrival, Halves

# --- inserting -----------------------------------------------------------------

_MESSAGE = {
    "id": "bigint",
    "size": "bigint",
    "is_ascii": "boolean",
    "in_file": "boolean",
    "smtputf8": "boolean",
    "require_tls": "boolean",
    "outside": "boolean",
    "local_part": "text",
    "domain": "text",
    "body": "text",
    "ret": "text",
    "envid": "text",
    "origin": "text",
}
_SCHEDULE = {
    "id": "bigint",
    "due": "double precision",
    "owner": "bigint",
    "on_hold": "smallint",
    "shift": "double precision",
    "reason": "text",
}
_RECIPIENT = {
    "message": "bigint",
    "number": "integer",
    "local_part": "text",
    "domain": "text",
    "notify": "text",
    "original": "text",
}


def _typed(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


def _insertion(table: str, columns: dict[str, str]) -> str:
    names = ", ".join(columns)
    return (
        f"INSERT INTO {table} ({names}) SELECT {names}"  # noqa: S608 (our own words)
        f" FROM json_to_recordset(%s::json) AS new ({_typed(columns)})"
    )


_INSERT_MESSAGES = f"""
INSERT INTO message ({", ".join(_MESSAGE)}, header, data)
SELECT * FROM ROWS FROM (
    json_to_recordset(%s::json) AS ({_typed(_MESSAGE)}),
    unnest(%s::bytea[]), unnest(%s::bytea[])
) AS new
"""  # noqa: S608 (our own words)
_INSERT_SCHEDULES = _insertion("schedule", _SCHEDULE)
_INSERT_RECIPIENTS = _insertion("recipient", _RECIPIENT)


# Fails where a body is gone: its owner was believed dead, and others swept it away.
_END_UPLOADS = """
WITH ended AS (DELETE FROM upload WHERE message = ANY(%s) RETURNING message)
SELECT 1 / (count(*) = %s)::integer FROM ended
"""


@dataclass(frozen=True, slots=True)
class MessageRows:
    """A new message as rows: its columns, and its recipients'.

    `body` is empty where it is in chunks.
    """

    message: Mapping[str, Any]
    recipients: Sequence[Mapping[str, Any]]
    header: bytes
    body: bytes


def of(arrival: Arrival) -> MessageRows:
    """The rows of a new message."""
    found: dict[str, Any] = dict(zip(rows.MESSAGE_COLUMNS, rows.message_row(arrival), strict=True))
    found["origin"] = origins.encoded(arrival.origin)
    found["on_hold"] = int(found["on_hold"])
    found["due"] = moment(found["due"])
    recipients = [
        dict(zip(rows.RECIPIENT_COLUMNS, row, strict=True)) for row in rows.recipient_rows(arrival)
    ]
    return MessageRows(found, recipients, arrival.header, arrival.data or b"")


def insert(connection: Connection, arrivals: Sequence[Arrival]) -> None:
    """Insert messages, their recipients, and content that has no chunks."""
    insert_rows(connection, [of(arrival) for arrival in arrivals])
    if uploaded := [arrival.number for arrival in arrivals if arrival.data is None]:
        connection.execute(_END_UPLOADS, (Numbers(uploaded), len(uploaded)))


def insert_rows(connection: Connection, new: Sequence[MessageRows]) -> None:
    """Insert the rows of messages."""
    if not new:
        return
    connection.execute(
        _INSERT_MESSAGES,
        (
            json.dumps([{name: each.message[name] for name in _MESSAGE} for each in new]),
            Octets([each.header for each in new]),
            Octets([each.body for each in new]),
        ),
    )
    schedules = [{name: each.message[name] for name in _SCHEDULE} for each in new]
    connection.execute(_INSERT_SCHEDULES, (json.dumps(schedules),))
    recipients = [recipient for each in new for recipient in each.recipients]
    connection.execute(_INSERT_RECIPIENTS, (json.dumps(recipients),))


def moment(due: float) -> float | str:
    """A due time as JSON has it."""
    return due if math.isfinite(due) else "Infinity"


# --- changing ------------------------------------------------------------------


def remove(connection: Connection, numbers: Collection[int]) -> None:
    """Remove messages, leased or not."""
    wanted = (Numbers(sorted(numbers)),)
    connection.execute("DELETE FROM schedule WHERE id = ANY(%s)", wanted)
    connection.execute("DELETE FROM message WHERE id = ANY(%s)", wanted)
    connection.execute("DELETE FROM recipient WHERE message = ANY(%s)", wanted)
    connection.execute("DELETE FROM chunk WHERE message = ANY(%s)", wanted)


# What is on hold has no owner.
_REMOVE_OURS = """
WITH gone AS (
    DELETE FROM schedule
    WHERE id = ANY(%s) AND (owner = %s OR owner IS NULL AND on_hold <> 0) RETURNING id
), messages AS (
    DELETE FROM message USING gone WHERE message.id = gone.id
), chunks AS (
    DELETE FROM chunk USING gone WHERE chunk.message = gone.id
), memory AS (
    DELETE FROM taken USING gone WHERE taken.message = gone.id AND key = ANY(%s)
)
DELETE FROM recipient USING gone WHERE recipient.message = gone.id
"""


def remove_ours(connection: Connection, new: Mapping[int, Sequence[str]], owner: int) -> None:
    """Remove new messages that no other process has taken.

    By their numbers there are the keys by which they are remembered.
    """
    keys = [key for each in new.values() for key in each]
    connection.execute(_REMOVE_OURS, (Numbers(sorted(new)), owner, keys))


# One statement: recipients are changed only where the lease is still ours.  IS NOT DISTINCT FROM
# keeps the planner from the index on owners, which serves = alone: each message is found by its id.
_UPDATE = """
WITH ours AS (
    UPDATE schedule
    SET owner = NULL, attempts = new.attempts, warned = new.warned, deaths = 0,
        recovered = schedule.recovered OR new.recovered,
        due = CASE WHEN on_hold <> 0 THEN 'Infinity' ELSE new.due END
    FROM json_to_recordset(%(messages)s::json) AS new (
        id bigint, due double precision, attempts integer, warned boolean, recovered boolean)
    WHERE schedule.id = new.id AND schedule.owner IS NOT DISTINCT FROM %(owner)s
    RETURNING schedule.id
)
UPDATE recipient
SET state = new.state, peer = new.peer, held_domain = new.held_domain, settled = new.settled,
    history = new.history, offered = greatest(recipient.offered, new.offered)
FROM json_to_recordset(%(recipients)s::json) AS new (
    message bigint, number integer, state text, peer text, held_domain text, settled text,
    history text, offered double precision)
WHERE recipient.message = new.message AND recipient.number = new.number
    AND new.message = ANY(ARRAY(SELECT id FROM ours))
"""
_PROGRESS = ("state", "peer", "held_domain", "settled", "history")


def update(connection: Connection, owner: int, settlements: Sequence[Settlement]) -> None:
    """Record attempts and end leases that are still the owner's."""
    recipients = [
        {
            "message": queue_id.decode(settlement.id),
            "number": place,
            "offered": settlement.offered,
            **dict(zip(_PROGRESS, rows.progress_columns(progress), strict=True)),
        }
        for settlement in settlements
        for place, progress in enumerate(settlement.progress)
    ]
    messages = [
        {
            "id": queue_id.decode(settlement.id),
            "due": moment(settlement.due),
            "attempts": settlement.attempts,
            "warned": settlement.warned,
            "recovered": settlement.recovered,
        }
        for settlement in settlements
    ]
    values = {"messages": json.dumps(messages), "recipients": json.dumps(recipients)}
    connection.execute(_UPDATE, {**values, "owner": owner})


# --- reading -------------------------------------------------------------------


def content(connection: Connection, number: int) -> Halves | None:
    """Read header section and body of a message; None: it is gone."""
    cursor = connection.cursor(binary=True)
    row: Halves | None = cursor.execute(
        "SELECT header, data FROM message WHERE id = %s", (number,)
    ).fetchone()
    return row


def header(connection: Connection, number: int) -> bytes | None:
    """Read a message's header section; None: it is gone."""
    cursor = connection.cursor(binary=True)
    row = cursor.execute("SELECT header FROM message WHERE id = %s", (number,)).fetchone()
    return row[0] if row else None


_COUNTS = """
SELECT CASE
    WHEN owner IS NOT NULL THEN 'active'
    WHEN on_hold = 3 THEN 'damaged'
    WHEN on_hold <> 0 OR NOT EXISTS (
        SELECT FROM recipient WHERE message = schedule.id AND state = 'waiting'
    ) THEN 'held'
    ELSE 'waiting' END AS kind, count(*), min(id)
FROM schedule GROUP BY kind
"""


def counts_by_state(connection: Connection) -> dict[str, tuple[int, float]]:
    """The number of messages in each state, and when the oldest came.

    In seconds since the epoch.
    """
    found = connection.execute(_COUNTS)
    counted = {state: (count, queue_id.arrival(oldest)) for state, count, oldest in found}
    return dict.fromkeys(("active", "waiting", "held", "damaged"), (0, 0.0)) | counted


def held_by_peer(connection: Connection) -> dict[str, tuple[int, float]]:
    """The number of messages held for each peer, and the oldest's arrival.

    In seconds since the epoch.
    """
    found = connection.execute(
        "SELECT peer, count(DISTINCT message), min(message) FROM recipient"
        " WHERE state = 'held' GROUP BY peer"
    )
    return {peer: (count, queue_id.arrival(oldest)) for peer, count, oldest in found}


def ids(cursor: psycopg.Cursor[Any]) -> list[int]:
    """The ids that a query found."""
    return [number for (number,) in cursor]


def counted(cursor: psycopg.Cursor[Any]) -> int:
    """The number that a query counted.

    In a pipeline `rowcount` is not known before results are read.
    """
    row = cursor.fetchone()
    return int(row[0]) if row else 0
