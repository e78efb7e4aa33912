"""The clients that greylisting knows, in a table that all processes share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from mta.settings import DAY, HOUR
from mta.shared_tables.forms import MAX_SKEW, TableForm, TableSet, make_room
from mta.shared_tables.gathering import GatheredWork
from mta.shared_tables.interfaces import IStatements, ITableStore

RETURN_WITHIN = 2 * DAY  # seconds: servers try again for days, senders of spam seldom do
CHECK_EVERY = 100  # questions: to count the rows takes milliseconds

TABLES = TableSet(
    "greylist",
    (
        TableForm(
            "client",
            "key BYTEA PRIMARY KEY, since DOUBLE PRECISION NOT NULL,"
            " until DOUBLE PRECISION NOT NULL, came_back INTEGER NOT NULL",
            "came_back, until",
        ),
    ),
)


class GreylistTable:
    """The table in a store.

    `now`: seconds since the epoch.  `in_thread` runs what blocks.
    """

    def __init__(
        self, store: ITableStore, now: Callable[[], float], in_thread: Callable[..., Deferred[Any]]
    ) -> None:
        self._work = GatheredWork(store.open(TABLES), in_thread)
        self._asked = 0
        self._now = now

    async def wait(self, name: str, delay: float, keep: float) -> float:
        """Return the seconds that are left to wait.

        0: what has this name may pass.  It is remembered for `keep` seconds after each time that it
        passes.  Raises OSError.
        """
        key = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:16]
        action = partial(_wait, key=key, now=self._now(), delay=delay, keep=keep)
        if self._asked % CHECK_EVERY == 0:
            await self._work.do(partial(_make_room, now=self._now()))
        self._asked += 1
        return await self._work.do(action)


def _make_room(statements: IStatements, now: float) -> None:
    # Those that never came back are forgotten first.
    make_room(statements, "client", "key", "came_back", now)


def _wait(statements: IStatements, *, key: bytes, now: float, delay: float, keep: float) -> float:
    row = statements.execute(
        "SELECT since, until, came_back FROM client WHERE key = ?", (key,)
    ).fetchone()
    # What came in a future that is gone begins anew, or it would be refused until then.
    if row is None or row[1] < now or (not row[2] and row[0] > now + MAX_SKEW):
        statements.execute(
            "INSERT INTO client VALUES (?, ?, ?, 0) ON CONFLICT (key)"
            " DO UPDATE SET since = excluded.since, until = excluded.until, came_back = 0",
            (key, now, now + delay + RETURN_WITHIN),
        )
        return delay
    since, until, came_back = row
    if not came_back and now < since + delay:
        # The clock of another node may be ahead.
        return float(min(delay, since + delay - now))
    if not came_back or until < now + keep - HOUR:  # a change in an hour is enough
        statements.execute(
            "UPDATE client SET until = ?, came_back = 1 WHERE key = ?", (now + keep, key)
        )
    return 0.0
