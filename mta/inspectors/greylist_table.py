"""The clients that greylisting knows, in a file that all processes share."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from mta.settings import DAY, HOUR
from mta.shared_table import SharedTable, make_room

NAME = "greylist.sqlite"
RETURN_WITHIN = 2 * DAY  # seconds: servers try again for days, senders of spam seldom do
CHECK_EVERY = 100  # questions: to count the rows takes milliseconds

_SCHEMA = """
CREATE TABLE IF NOT EXISTS client (
    key BLOB PRIMARY KEY,
    since REAL NOT NULL,
    until REAL NOT NULL,
    came_back INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS age ON client (came_back, until);
"""


class GreylistTable:
    """The table in a spool folder.

    `now`: seconds since the epoch.  `in_thread` runs what blocks.
    """

    def __init__(
        self, spool: Path, now: Callable[[], float], in_thread: Callable[..., Deferred[Any]]
    ) -> None:
        self._table = SharedTable(spool / NAME, _SCHEMA)
        self._asked = 0
        self._now = now
        self._in_thread = in_thread

    async def wait(self, name: str, delay: float, keep: float) -> float:
        """Return the seconds that are left to wait.

        0: what has this name may pass.  It is remembered for `keep` seconds after each time that it
        passes.  Raises OSError.
        """
        key = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:16]
        action = partial(_wait, key=key, now=self._now(), delay=delay, keep=keep)
        if self._asked % CHECK_EVERY == 0:
            # Those that never came back are forgotten first.
            forget = partial(
                make_room, table="client", key="key", worth="came_back", now=self._now()
            )
            await self._in_thread(self._table.change, forget)
        self._asked += 1
        left: float = await self._in_thread(self._table.change, action)
        return left


def _wait(
    connection: sqlite3.Connection, *, key: bytes, now: float, delay: float, keep: float
) -> float:
    row = connection.execute(
        "SELECT since, until, came_back FROM client WHERE key = ?", (key,)
    ).fetchone()
    if row is None or row[1] < now:
        connection.execute(
            "REPLACE INTO client VALUES (?, ?, ?, 0)", (key, now, now + delay + RETURN_WITHIN)
        )
        return delay
    since, until, came_back = row
    if not came_back and now < since + delay:
        # A clock that was set back must not make it wait for longer.
        return float(min(delay, since + delay - now))
    if not came_back or until < now + keep - HOUR:  # a change in an hour is enough
        connection.execute(
            "UPDATE client SET until = ?, came_back = 1 WHERE key = ?", (now + keep, key)
        )
    return 0.0
