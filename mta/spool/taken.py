"""The memory of what came by an id: none is taken twice.

A peer that has not seen our 250 brings its message again, by the same id, and so does a node what
another one wrote before it died.  What is remembered goes
into the transaction that commits the message: it is there if, and only if, the message was.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from hashlib import blake2b

from mta.mail import Envelope, Recipient
from mta.session import Origin
from mta.spool import rows

KEPT = 7 * 86400  # seconds: a peer that has its mail still by then is asked by people
DIGEST_SIZE = 16  # octets: two that are equal by chance would cost a message
PURGE_PAUSE = 60.0  # seconds between two looks for what is too old
MAX_PURGED = 1000  # rows forgotten in one transaction, which others wait for

# It is made at need: a spool without such peers has none.
_TABLE = """
CREATE TABLE IF NOT EXISTS taken (key TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID
"""
_INDEX = "CREATE INDEX IF NOT EXISTS taken_at ON taken (at)"


class TakenMail:
    """The memory of one spool, through the connection that commits.

    `now`: seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._purged = 0.0

    def sift(
        self, connection: sqlite3.Connection, arrivals: Sequence[rows.Arrival]
    ) -> Sequence[rows.Arrival]:
        """Return the messages without the recipients that have them already.

        One without recipients may be left.  What is left is remembered.
        """
        if not any(arrival.origin.is_remembered for arrival in arrivals):
            return arrivals
        connection.execute(_TABLE)
        connection.execute(_INDEX)
        now = self._now()
        sifted = [self._sifted(connection, arrival, now) for arrival in arrivals]
        self._purge(connection, now)
        return sifted

    def _sifted(
        self, connection: sqlite3.Connection, arrival: rows.Arrival, now: float
    ) -> rows.Arrival:
        if not arrival.origin.is_remembered:
            return arrival
        added = connection.execute(
            "INSERT INTO taken (key, at) SELECT value, ? FROM json_each(?) WHERE true"
            " ON CONFLICT DO NOTHING RETURNING key",
            (int(now), json.dumps(keys_of(arrival))),
        )
        return only_new(arrival, {key for (key,) in added.fetchall()})

    def _purge(self, connection: sqlite3.Connection, now: float) -> None:
        """Forget some of what is too old."""
        if abs(now - self._purged) < PURGE_PAUSE:
            return
        forgotten = connection.execute(
            "DELETE FROM taken WHERE key IN (SELECT key FROM taken WHERE at < ? LIMIT ?)",
            (int(now) - KEPT, MAX_PURGED),
        )
        if forgotten.rowcount < MAX_PURGED:
            self._purged = now


def remembered(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    """All keys that there are, with their times."""
    connection.execute(_TABLE)
    return connection.execute("SELECT key, at FROM taken").fetchall()


def restore_taken(connection: sqlite3.Connection, taken: Collection[tuple[str, int]]) -> None:
    """Remember what another spool did."""
    if taken:
        connection.execute(_TABLE)
        connection.execute(_INDEX)
        connection.executemany("INSERT OR IGNORE INTO taken (key, at) VALUES (?, ?)", taken)


def known(connection: sqlite3.Connection, keys: Collection[str]) -> Collection[str]:
    """Those of these keys that there are."""
    query = "SELECT 1 FROM sqlite_master WHERE name = 'taken'"
    if connection.execute(query).fetchone() is None:
        return ()
    found = connection.execute(
        "SELECT key FROM taken WHERE key IN (SELECT value FROM json_each(?))",
        (json.dumps([*keys]),),
    )
    return [key for (key,) in found.fetchall()]


def key_of(origin: Origin, recipient: Recipient) -> str:
    """The key of a message and one of its recipients."""
    parts = json.dumps([origin.turned_peer, origin.told_id, str(recipient.forward_path)])
    return blake2b(parts.encode(), digest_size=DIGEST_SIZE).hexdigest()


def keys_of(arrival: rows.Arrival) -> list[str]:
    """The keys by which a message is remembered, one for each recipient."""
    if not arrival.origin.is_remembered:
        return []
    return [key_of(arrival.origin, recipient) for recipient in arrival.envelope.recipients]


def only_new(arrival: rows.Arrival, new: Collection[str]) -> rows.Arrival:
    """Return a message without the recipients whose keys are not `new`."""
    recipients = arrival.envelope.recipients
    if len(new) == len(recipients):
        return arrival
    keys = keys_of(arrival)
    left = [each for each, key in zip(recipients, keys, strict=True) if key in new]
    return replace(arrival, envelope=replace(arrival.envelope, recipients=tuple(left)))


def without_taken(envelope: Envelope, taken: set[str], origin: Origin) -> Envelope:
    """Return an envelope without recipients in `taken`; the others join it."""
    if not origin.is_remembered:
        return envelope
    keys = {key_of(origin, each): each for each in envelope.recipients}
    left = tuple(each for key, each in keys.items() if key not in taken)
    taken.update(keys)
    return replace(envelope, recipients=left)
