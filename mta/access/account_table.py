"""The counts and suspensions of accounts, in a shared file.

An account is a user, or a host of ours.  Everything here blocks.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

from mta.settings import DAY, HOUR, MINUTE
from mta.shared_table import SharedTable

NAME = "accounts.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS counted (
    kind TEXT NOT NULL,
    account TEXT NOT NULL,
    slot INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (kind, account, slot)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told (
    subject TEXT PRIMARY KEY,
    until REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS suspended (
    user TEXT PRIMARY KEY,
    since REAL NOT NULL,
    reason TEXT NOT NULL
) WITHOUT ROWID;
"""


class Kind(Enum):
    """The events that are counted: those of the last `window` seconds."""

    RECIPIENTS = "recipients"
    FAILURES = "failures"

    @property
    def window(self) -> float:
        """The length of the time that counts, in seconds."""
        return DAY if self is Kind.RECIPIENTS else HOUR

    @property
    def slot(self) -> float:
        """The length of a part of the window, in seconds.

        An event may count for as much too long.
        """
        return HOUR if self is Kind.RECIPIENTS else 5 * MINUTE


@dataclass(frozen=True, slots=True)
class Suspension:
    """A user who may send nothing.  `since`: seconds since the epoch."""

    user: str
    since: float
    reason: str


class AccountTable:
    """The table in a spool folder.

    `now` gives seconds since the epoch.  All methods raise OSError.
    """

    def __init__(self, spool: Path, now: Callable[[], float] = time.time) -> None:
        self._table = SharedTable(spool / NAME, _SCHEMA)
        self._now = now

    @property
    def exists(self) -> bool:
        """Tell whether anything was ever written."""
        return self._table.path.exists()

    def count(self, kind: Kind, events: Mapping[str, int]) -> Mapping[str, int]:
        """Add events of accounts; return how many each has in the window."""
        return self._table.change(partial(_count, kind=kind, events=events, now=self._now()))

    def tell(self, subject: str, seconds: float) -> bool:
        """Return whether a subject was not told in the `seconds` before."""
        return self._table.change(partial(_tell, subject=subject, now=self._now(), seconds=seconds))

    def suspend(self, user: str, reason: str) -> bool:
        """Suspend a user; return whether that is new."""
        row = (user.lower(), self._now(), reason)
        insert = "INSERT OR IGNORE INTO suspended VALUES (?, ?, ?)"
        return self._table.change(lambda connection: connection.execute(insert, row).rowcount > 0)

    def resume(self, user: str) -> bool:
        """End a suspension; return whether there was one.

        Failures are counted anew.
        """
        return self.exists and self._table.change(partial(_resume, user=user.lower()))

    def suspensions(self) -> Sequence[Suspension]:
        """Return all suspensions, by user."""
        if not self.exists:
            return ()
        select = "SELECT user, since, reason FROM suspended ORDER BY user"
        rows = self._table.change(lambda connection: connection.execute(select).fetchall())
        return [Suspension(*row) for row in rows]


def user_account(user: str) -> str:
    """Return the account of a user."""
    return f"user {user.lower()}"


def _count(
    connection: sqlite3.Connection, *, kind: Kind, events: Mapping[str, int], now: float
) -> Mapping[str, int]:
    slot = int(now // kind.slot)
    oldest = slot - round(kind.window / kind.slot)
    # Those of a clock that was set back are gone as well.
    connection.execute(
        "DELETE FROM counted WHERE kind = ? AND NOT slot BETWEEN ? AND ?",
        (kind.value, oldest, slot),
    )
    connection.executemany(
        "INSERT INTO counted VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET number = number + excluded.number",
        [(kind.value, account, slot, number) for account, number in events.items() if number],
    )
    select = "SELECT coalesce(sum(number), 0) FROM counted WHERE kind = ? AND account = ?"
    return {
        account: int(connection.execute(select, (kind.value, account)).fetchone()[0])
        for account in events
    }


def _tell(connection: sqlite3.Connection, *, subject: str, now: float, seconds: float) -> bool:
    connection.execute("DELETE FROM told WHERE NOT until BETWEEN ? AND ?", (now, now + 2 * DAY))
    insert = "INSERT OR IGNORE INTO told VALUES (?, ?)"
    return connection.execute(insert, (subject, now + seconds)).rowcount > 0


def _resume(connection: sqlite3.Connection, *, user: str) -> bool:
    failures = (Kind.FAILURES.value, user_account(user))
    connection.execute("DELETE FROM counted WHERE kind = ? AND account = ?", failures)
    return connection.execute("DELETE FROM suspended WHERE user = ?", (user,)).rowcount > 0
