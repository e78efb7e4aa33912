"""Messages as rows, and rows as messages.

Whoever holds the interpreter lock makes us wait once for every SQL statement that ends, while
SQLite itself works without it.  So statements here take many messages at once: several rows in
one VALUES, or a list as JSON.  Beside a busy reactor that is several times as fast as
executemany().
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from itertools import chain
from typing import Any

from mta.interfaces import Attempt, IContent, Message, Progress, Settlement, State
from mta.mail import Body, Envelope, Mailbox, Notify, Recipient
from mta.spool import queue_id

LEASE = 600.0  # seconds; no lease ends later than that from now
NEVER = float("inf")  # the `due` of a message on hold


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message to be inserted.  `data` None: its content is in a file.

    `on_hold`: the standing hold that it fits, empty where there is none.
    """

    number: int
    envelope: Envelope
    due: float
    owner: int | None
    size: int
    is_ascii: bool
    data: bytes | None
    on_hold: str = ""


@dataclass(frozen=True, slots=True)
class ContentKey:
    """What a message's row knows of its content."""

    number: int
    size: int
    is_ascii: bool
    in_file: bool


# --- inserting -----------------------------------------------------------------

_CHUNK = 64  # rows in one INSERT: each number of rows is a prepared statement of its own


def insert(connection: sqlite3.Connection, arrivals: Sequence[Arrival]) -> None:
    """Insert messages with their recipients and their content, as far as it has no file."""
    _insert(
        connection,
        "message (id, due, owner, on_hold, size, is_ascii, in_file, local_part, domain,"
        " body, smtputf8, ret, envid, require_tls)",
        [_message_row(arrival) for arrival in arrivals],
    )
    _insert(
        connection,
        "content (id, data)",
        [(arrival.number, arrival.data) for arrival in arrivals if arrival.data is not None],
    )
    _insert(
        connection,
        "recipient (message, number, local_part, domain, notify, original)",
        [row for arrival in arrivals for row in _recipient_rows(arrival)],
    )


def _message_row(arrival: Arrival) -> tuple[object, ...]:
    envelope = arrival.envelope
    return (
        arrival.number,
        NEVER if arrival.on_hold else arrival.due,
        None if arrival.on_hold else arrival.owner,
        bool(arrival.on_hold),
        arrival.size,
        arrival.is_ascii,
        arrival.data is None,
        envelope.reverse_path.local_part,
        envelope.reverse_path.domain,
        envelope.body.value,
        envelope.smtputf8,
        envelope.ret,
        envelope.envid,
        envelope.require_tls,
    )


def _recipient_rows(arrival: Arrival) -> Iterable[tuple[object, ...]]:
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
    """Remove messages, whoever has leased them; files go to `leftover`.  Returns how many."""
    return connection.execute(
        "DELETE FROM message WHERE id IN (SELECT value FROM json_each(?))", (_list(numbers),)
    ).rowcount


def update(connection: sqlite3.Connection, owner: int, settlements: Sequence[Settlement]) -> None:
    """Record attempts and end their leases, as far as they are still the owner's."""
    recipients = [
        (queue_id.decode(settlement.id), place, *_progress_columns(progress))
        for settlement in settlements
        for place, progress in enumerate(settlement.progress)
    ]
    connection.execute(
        """
        UPDATE recipient
        SET state = new.value ->> 2, peer = new.value ->> 3, held_domain = new.value ->> 4,
            settled = new.value ->> 5, history = new.value ->> 6
        FROM json_each(?) AS new
        WHERE message = new.value ->> 0 AND number = new.value ->> 1
            AND (SELECT owner FROM message WHERE id = new.value ->> 0) = ?
        """,
        (json.dumps(recipients), owner),
    )
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
    connection.execute(
        """
        UPDATE message
        SET owner = NULL, due = CASE WHEN on_hold THEN 9e999 ELSE new.value ->> 1 END,
            attempts = new.value ->> 2, warned = new.value ->> 3,
            recovered = recovered OR new.value ->> 4
        FROM json_each(?) AS new
        WHERE message.id = new.value ->> 0 AND owner = ?
        """,
        (json.dumps(messages), owner),
    )


def _progress_columns(progress: Progress) -> tuple[str, ...]:
    history = [astuple(entry) for entry in progress.history]
    return (
        progress.state.value,
        progress.peer,
        progress.domain,
        json.dumps(sorted(progress.settled)),
        json.dumps(history),
    )


# --- leasing -------------------------------------------------------------------


def due(connection: sqlite3.Connection, owner: int, now: float, limit: int) -> list[int]:
    """The ids of messages whose time, or whose lease to another owner, is over."""
    return _ids(
        connection.execute(
            "SELECT id FROM message WHERE due <= ? AND owner IS NOT ? ORDER BY due LIMIT ?",
            (now, owner, limit),
        )
    )


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
    return _ids(
        connection.execute(
            f"{_HELD} AND {_FREE} ORDER BY message LIMIT :limit",
            {"peer": peer, "domains": _list(domains), "limit": limit},
        )
    )


def count_held(
    connection: sqlite3.Connection, peer: str, domains: Collection[str], most: int
) -> int:
    """How many messages wait for a peer, counted up to `most`."""
    found = connection.execute(
        f"SELECT count(*) FROM ({_HELD} LIMIT :most)",  # noqa: S608 (our own words)
        {"peer": peer, "domains": _list(domains), "most": most},
    )
    count: int = found.fetchone()[0]
    return count


def free(connection: sqlite3.Connection, numbers: Collection[int]) -> list[int]:
    """Those of these messages that nobody works on, nor holds, in that order."""
    return _ids(
        connection.execute(
            """
            SELECT message.id FROM json_each(?) CROSS JOIN message ON message.id = value
            WHERE owner IS NULL AND NOT on_hold ORDER BY key
            """,
            (_list(numbers),),
        )
    )


def recalled(connection: sqlite3.Connection, numbers: Collection[int], owner: int) -> list[int]:
    """Those of an owner's messages that are gone, or on hold."""
    return _ids(
        connection.execute(
            """
            SELECT value FROM json_each(?) WHERE NOT EXISTS (
                SELECT 1 FROM message WHERE id = value AND owner = ? AND NOT on_hold
            )
            """,
            (_list(numbers), owner),
        )
    )


def lease(connection: sqlite3.Connection, numbers: Sequence[int], owner: int, end: float) -> None:
    """Give messages to an owner.  Those that another one had are `recovered`."""
    connection.execute(
        """
        UPDATE message
        SET recovered = recovered OR owner IS NOT NULL, owner = ?, due = ?, put_by = NULL
        WHERE id IN (SELECT value FROM json_each(?))
        """,
        (owner, end, _list(numbers)),
    )


def renew(connection: sqlite3.Connection, numbers: Collection[int], owner: int, end: float) -> None:
    """Move the end of leases that are still the owner's."""
    connection.execute(
        "UPDATE message SET due = ? WHERE owner = ? AND id IN (SELECT value FROM json_each(?))",
        (end, owner, _list(numbers)),
    )


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
        (_list(incoming),),
    )
    return connection.execute(
        """
        UPDATE message
        SET owner = NULL, recovered = 1, due = CASE WHEN on_hold THEN 9e999 ELSE ? END
        WHERE due <= ? AND owner = ?
        """,
        (now, now + LEASE, owner),
    ).rowcount


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


def next_due(connection: sqlite3.Connection, owner: int) -> float | None:
    """When the first message that the owner has not leased is due; None: there is none."""
    row = connection.execute(
        "SELECT due FROM message WHERE owner IS NOT ? ORDER BY due LIMIT 1", (owner,)
    ).fetchone()
    return None if row is None or row[0] == NEVER else row[0]


# --- reading -------------------------------------------------------------------


def load(
    connection: sqlite3.Connection,
    numbers: Sequence[int],
    content: Callable[[ContentKey], IContent],
) -> list[Message]:
    """The messages with these ids that exist, in that order; `content` makes their content."""
    wanted = _list(numbers)
    progress: dict[int, list[Progress]] = {}
    for row in connection.execute(
        """
        SELECT message, local_part, domain, notify, original,
            state, peer, held_domain, settled, history
        FROM recipient WHERE message IN (SELECT value FROM json_each(?))
        ORDER BY message, number
        """,
        (wanted,),
    ):
        progress.setdefault(row[0], []).append(_progress(*row[1:]))
    messages = {
        row[0]: _message(row, tuple(progress[row[0]]), content)
        for row in connection.execute(
            """
            SELECT id, size, is_ascii, in_file, attempts, warned, recovered,
                local_part, domain, body, smtputf8, ret, envid, require_tls
            FROM message WHERE id IN (SELECT value FROM json_each(?))
            """,
            (wanted,),
        )
    }
    return [messages[number] for number in numbers if number in messages]


def _message(
    row: tuple[Any, ...],
    progress: tuple[Progress, ...],
    content: Callable[[ContentKey], IContent],
) -> Message:
    number, size, is_ascii, in_file, attempts, warned, recovered, *rest = row
    return Message(
        id=queue_id.encode(number),
        arrived=queue_id.arrival(number),
        envelope=_envelope(tuple(entry.recipient for entry in progress), *rest),
        content=content(ContentKey(number, size, bool(is_ascii), bool(in_file))),
        progress=progress,
        attempts=attempts,
        warned=bool(warned),
        recovered=bool(recovered),
    )


def _envelope(
    recipients: tuple[Recipient, ...],
    local_part: str,
    domain: str,
    body: str,
    smtputf8: int,
    ret: str,
    envid: str,
    require_tls: int,
) -> Envelope:
    return Envelope(
        reverse_path=Mailbox(local_part, domain),
        recipients=recipients,
        body=Body(body),
        smtputf8=bool(smtputf8),
        ret=ret,
        envid=envid,
        require_tls=bool(require_tls),
    )


def _progress(
    local_part: str,
    domain: str,
    notify: str,
    original: str,
    state: str,
    peer: str,
    held_domain: str,
    settled: str,
    history: str,
) -> Progress:
    return Progress(
        recipient=Recipient(
            forward_path=Mailbox(local_part, domain),
            notify=frozenset(map(Notify, notify.split())),
            original=original,
        ),
        state=State(state),
        peer=peer,
        domain=held_domain,
        settled=frozenset(json.loads(settled)),
        history=tuple(Attempt(*entry) for entry in json.loads(history)),
    )


def data(connection: sqlite3.Connection, number: int) -> bytes | None:
    """Content that is in the database; None where it is not, or no more."""
    row = connection.execute("SELECT data FROM content WHERE id = ?", (number,)).fetchone()
    return row[0] if row else None


def census(connection: sqlite3.Connection) -> dict[str, tuple[int, float]]:
    """By state: how many messages, and when the oldest came, in seconds since the epoch."""
    found = connection.execute(
        """
        SELECT CASE
            WHEN owner IS NOT NULL THEN 'active'
            WHEN on_hold OR NOT EXISTS (
                SELECT 1 FROM recipient WHERE message = id AND state = 'waiting'
            ) THEN 'held'
            ELSE 'waiting' END AS kind, count(*), min(id)
        FROM message GROUP BY kind
        """
    )
    counted = {state: (count, queue_id.arrival(oldest)) for state, count, oldest in found}
    return dict.fromkeys(("active", "waiting", "held"), (0, 0.0)) | counted


def leftovers(connection: sqlite3.Connection, limit: int) -> list[int]:
    """Ids of content files that no message refers to."""
    return _ids(connection.execute("SELECT id FROM leftover LIMIT ?", (limit,)))


def forget_leftovers(connection: sqlite3.Connection, numbers: Collection[int]) -> None:
    """The files are gone."""
    connection.execute(
        "DELETE FROM leftover WHERE id IN (SELECT value FROM json_each(?))", (_list(numbers),)
    )


def _ids(cursor: sqlite3.Cursor) -> list[int]:
    return [number for (number,) in cursor]


def _list(values: Collection[int] | Collection[str]) -> str:
    return json.dumps(list(values))
