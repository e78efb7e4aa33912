"""Messages as rows, and rows as messages.

Each SQL statement that ends waits once for the interpreter lock, which the reactor holds, while
SQLite itself works without it.  So statements here take many messages at once: several rows in
one VALUES, or a list as JSON.  Beside a busy reactor that is several times as fast as
executemany().
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from itertools import chain

from mta.mail import Envelope
from mta.queued import Progress, Settlement
from mta.session import UNKNOWN_ORIGIN, Origin
from mta.spool import origins, queue_id
from mta.spool.schema import Hold


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message to be inserted.  `data` is its body, None where that is in a file.

    `size` is that of header section and body.  `on_hold` says why it is kept for the
    operator; `reason` is the same for its row, and empty for a standing hold.
    """

    number: int
    envelope: Envelope
    due: float
    owner: int | None
    size: int
    is_ascii: bool
    header: bytes
    data: bytes | None
    origin: Origin = UNKNOWN_ORIGIN
    on_hold: str = ""
    reason: str = ""
    shift: float = 0.0


# --- inserting -----------------------------------------------------------------

# Before the kind of body of sealed content: a version that knows none keeps it as damaged.
SEALED = "sealed "

_CHUNK = 64  # rows in one INSERT: each number of rows is a prepared statement of its own


def insert(connection: sqlite3.Connection, arrivals: Sequence[Arrival]) -> None:
    """Insert messages, their recipients, and content that has no file."""
    _insert(
        connection,
        f"message ({', '.join(MESSAGE_COLUMNS)})",
        [message_row(arrival) for arrival in arrivals],
    )
    _insert(
        connection,
        "content (id, origin, header, data)",
        [
            (arrival.number, origins.encoded(arrival.origin), arrival.header, arrival.data or b"")
            for arrival in arrivals
        ],
    )
    _insert(
        connection,
        f"recipient ({', '.join(RECIPIENT_COLUMNS)})",
        [row for arrival in arrivals for row in recipient_rows(arrival)],
    )


MESSAGE_COLUMNS = (
    *("id", "due", "owner", "on_hold", "size", "is_ascii", "in_file", "local_part", "domain"),
    *("body", "smtputf8", "ret", "envid", "require_tls", "outside", "shift", "reason"),
)
RECIPIENT_COLUMNS = ("message", "number", "local_part", "domain", "notify", "original")


def message_row(arrival: Arrival) -> tuple[object, ...]:
    """The values of `MESSAGE_COLUMNS` for a new message."""
    envelope = arrival.envelope
    return (
        arrival.number,
        math.inf if arrival.on_hold else arrival.due,
        None if arrival.on_hold else arrival.owner,
        bool(arrival.on_hold),
        arrival.size,
        arrival.is_ascii,
        arrival.data is None,
        envelope.reverse_path.local_part,
        envelope.reverse_path.domain,
        (SEALED if envelope.sealed else "") + envelope.body.value,
        envelope.smtputf8,
        envelope.ret,
        envelope.envid,
        envelope.require_tls,
        envelope.outside,
        arrival.shift,
        arrival.reason,
    )


def recipient_rows(arrival: Arrival) -> Iterable[tuple[object, ...]]:
    """The values of `RECIPIENT_COLUMNS` for each recipient of a new message."""
    for place, recipient in enumerate(arrival.envelope.recipients):
        yield (
            arrival.number,
            place,
            recipient.forward_path.local_part,
            recipient.forward_path.domain,
            " ".join(sorted(condition.value for condition in recipient.notify)),
            recipient.original,
        )


def _insert(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[object, ...]]) -> None:
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        connection.execute(
            _insertion(into, len(chunk), len(chunk[0])), tuple(chain.from_iterable(chunk))
        )


@cache
def _insertion(into: str, rows: int, columns: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return f"INSERT INTO {into} VALUES " + ",".join([row] * rows)  # noqa: S608 (our own words)


# --- changing ------------------------------------------------------------------


def remove(connection: sqlite3.Connection, numbers: Collection[int]) -> int:
    """Remove messages, leased or not; returns how many.

    Their files are listed in `leftover`.
    """
    return connection.execute(
        "DELETE FROM message WHERE id IN (SELECT value FROM json_each(?))", (listed(numbers),)
    ).rowcount


_UPDATE_RECIPIENTS = """
UPDATE recipient
SET state = new.value ->> 2, peer = new.value ->> 3, held_domain = new.value ->> 4,
    settled = new.value ->> 5, history = new.value ->> 6, offered = max(offered, new.value ->> 7)
FROM json_each(?) AS new
WHERE message = new.value ->> 0 AND number = new.value ->> 1
    AND (SELECT owner FROM message WHERE id = new.value ->> 0) = ?
"""
_UPDATE_MESSAGES = """
UPDATE message
SET owner = NULL, due = CASE WHEN on_hold THEN 9e999 ELSE new.value ->> 1 END,
    attempts = new.value ->> 2, warned = new.value ->> 3,
    recovered = recovered OR new.value ->> 4, deaths = 0
FROM json_each(?) AS new
WHERE message.id = new.value ->> 0 AND owner = ?
"""


def update(connection: sqlite3.Connection, owner: int, settlements: Sequence[Settlement]) -> None:
    """Record attempts and end leases that are still the owner's."""
    recipients = [
        (queue_id.decode(settlement.id), place, *progress_columns(progress), settlement.offered)
        for settlement in settlements
        for place, progress in enumerate(settlement.progress)
    ]
    connection.execute(_UPDATE_RECIPIENTS, (json.dumps(recipients), owner))
    messages = [
        (
            queue_id.decode(settlement.id),
            settlement.due,
            settlement.attempts,
            settlement.warned,
            settlement.recovered,
        )
        for settlement in settlements
    ]
    connection.execute(_UPDATE_MESSAGES, (json.dumps(messages), owner))


def progress_columns(progress: Progress) -> tuple[str, ...]:
    """The values of state, peer, held_domain, settled and history."""
    history = [astuple(entry) for entry in progress.history]
    return (
        progress.state.value,
        progress.peer,
        progress.domain,
        json.dumps(sorted(progress.settled)),
        json.dumps(history),
    )


# --- reading -------------------------------------------------------------------


Halves = tuple[bytes | None, bytes]  # header section and body; None: both are in the second


def content(connection: sqlite3.Connection, number: int) -> Halves | None:
    """Read what the database has of a message's content; None: nothing."""
    row: Halves | None = connection.execute(
        "SELECT CAST(header AS BLOB), CAST(data AS BLOB) FROM content WHERE id = ?", (number,)
    ).fetchone()
    return row


def header(connection: sqlite3.Connection, number: int) -> bytes | None:
    """Read a message's header section; None: it is with the body."""
    row = connection.execute(
        "SELECT CAST(header AS BLOB) FROM content WHERE id = ?", (number,)
    ).fetchone()
    return row[0] if row else None


def counts_by_state(connection: sqlite3.Connection) -> dict[str, tuple[int, float]]:
    """The number of messages in each state, and when the oldest came.

    In seconds since the epoch.
    """
    found = connection.execute(
        f"""
        SELECT CASE
            WHEN owner IS NOT NULL THEN 'active'
            WHEN on_hold = {Hold.DAMAGED:d} THEN 'damaged'
            WHEN on_hold OR NOT EXISTS (
                SELECT 1 FROM recipient WHERE message = id AND state = 'waiting'
            ) THEN 'held'
            ELSE 'waiting' END AS kind, count(*), min(id)
        FROM message GROUP BY kind
        """  # noqa: S608 (our own words)
    )
    counted = {state: (count, queue_id.arrival(oldest)) for state, count, oldest in found}
    return dict.fromkeys(("active", "waiting", "held", "damaged"), (0, 0.0)) | counted


def held_by_peer(connection: sqlite3.Connection) -> dict[str, tuple[int, float]]:
    """The number of messages held for each peer, and the oldest's arrival.

    In seconds since the epoch.
    """
    found = connection.execute(
        "SELECT peer, count(DISTINCT message), min(message) FROM recipient"
        " WHERE state = 'held' GROUP BY peer"
    )
    return {peer: (count, queue_id.arrival(oldest)) for peer, count, oldest in found}


def leftovers(connection: sqlite3.Connection, limit: int, but: Collection[int] = ()) -> list[int]:
    """Ids of content files that no message refers to, but for some."""
    return ids(
        connection.execute(
            "SELECT id FROM leftover WHERE id NOT IN (SELECT value FROM json_each(?)) LIMIT ?",
            (listed(but), limit),
        )
    )


def unknown(connection: sqlite3.Connection, numbers: Collection[int]) -> list[int]:
    """Those of these ids that no message has, nor any leftover file."""
    return ids(
        connection.execute(
            """
            SELECT value FROM json_each(?) WHERE value NOT IN (SELECT id FROM leftover)
                AND NOT EXISTS (SELECT 1 FROM message WHERE id = value)
            """,
            (listed(numbers),),
        )
    )


def forget_leftovers(connection: sqlite3.Connection, numbers: Collection[int]) -> None:
    """Forget files that are gone."""
    connection.execute(
        "DELETE FROM leftover WHERE id IN (SELECT value FROM json_each(?))", (listed(numbers),)
    )


def ids(cursor: sqlite3.Cursor) -> list[int]:
    """The ids that a query found."""
    return [number for (number,) in cursor]


def listed(values: Collection[int] | Collection[str]) -> str:
    """Values as JSON, for `json_each`."""
    return json.dumps(list(values))
