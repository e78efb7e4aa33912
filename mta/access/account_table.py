"""The counts and suspensions of accounts, in shared tables.

An account is a user, or a host of ours.  Everything here blocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

from mta.settings import DAY, HOUR, MINUTE
from mta.shared_tables.forms import MAX_SKEW, TableForm, TableSet
from mta.shared_tables.interfaces import IStatements, ITableStore

TABLES = TableSet(
    "accounts",
    (
        TableForm(
            "counted",
            "kind TEXT, account TEXT, slot INTEGER, number BIGINT NOT NULL,"
            " PRIMARY KEY (kind, account, slot)",
        ),
        TableForm("told", "subject TEXT PRIMARY KEY, until DOUBLE PRECISION NOT NULL"),
        TableForm(
            "suspended",
            '"user" TEXT PRIMARY KEY, since DOUBLE PRECISION NOT NULL, reason TEXT NOT NULL',
        ),
    ),
)


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
    """The tables in a store.

    `now` gives seconds since the epoch.  All methods raise OSError.
    """

    def __init__(self, store: ITableStore, now: Callable[[], float] = time.time) -> None:
        self._tables = store.open(TABLES)
        self._now = now

    @property
    def exists(self) -> bool:
        """Tell whether anything was ever written."""
        return self._tables.exists

    def count(self, kind: Kind, events: Mapping[str, int]) -> Mapping[str, int]:
        """Add events of accounts; return how many each has in the window."""
        return self._tables.change(partial(_count, kind=kind, events=events, now=self._now()))

    def tell(self, subject: str, seconds: float) -> bool:
        """Return whether a subject was not told in the `seconds` before."""
        telling = partial(_tell, subject=subject, now=self._now(), seconds=seconds)
        return self._tables.change(telling)

    def suspend(self, user: str, reason: str) -> bool:
        """Suspend a user; return whether that is new."""
        row = (user.lower(), self._now(), reason)
        insert = "INSERT INTO suspended VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        return self._tables.change(lambda each: bool(each.execute(insert, row).rowcount))

    def resume(self, user: str) -> bool:
        """End a suspension; return whether there was one.

        Failures are counted anew.
        """
        return self.exists and self._tables.change(partial(_resume, user=user.lower()))

    def suspensions(self) -> Sequence[Suspension]:
        """Return all suspensions, by user."""
        if not self.exists:
            return ()
        select = 'SELECT "user", since, reason FROM suspended ORDER BY "user"'
        rows = self._tables.change(lambda each: each.execute(select).fetchall())
        return [Suspension(*row) for row in rows]


def user_account(user: str) -> str:
    """Return the account of a user."""
    return f"user {user.lower()}"


def _count(
    statements: IStatements, *, kind: Kind, events: Mapping[str, int], now: float
) -> Mapping[str, int]:
    slot = int(now // kind.slot)
    oldest = slot - round(kind.window / kind.slot)
    # Those of a clock that was set back are gone as well; that of another node may be ahead.
    statements.execute(
        "DELETE FROM counted WHERE kind = ? AND NOT slot BETWEEN ? AND ?",
        (kind.value, oldest, slot + 1),
    )
    statements.execute_each(
        "INSERT INTO counted VALUES (?, ?, ?, ?) ON CONFLICT (kind, account, slot)"
        " DO UPDATE SET number = counted.number + excluded.number",
        [(kind.value, account, slot, number) for account, number in events.items() if number],
    )
    select = "SELECT coalesce(sum(number), 0) FROM counted WHERE kind = ? AND account = ?"
    return {
        account: int(statements.execute(select, (kind.value, account)).fetchone()[0])
        for account in events
    }


def _tell(statements: IStatements, *, subject: str, now: float, seconds: float) -> bool:
    statements.execute("DELETE FROM told WHERE NOT until BETWEEN ? AND ?", (now, now + 2 * DAY))
    # One of a clock that was set back keeps none silent for longer.
    longest = now + seconds + MAX_SKEW
    statements.execute("DELETE FROM told WHERE subject = ? AND until > ?", (subject, longest))
    insert = "INSERT INTO told VALUES (?, ?) ON CONFLICT DO NOTHING"
    return bool(statements.execute(insert, (subject, now + seconds)).rowcount)


def _resume(statements: IStatements, *, user: str) -> bool:
    failures = (Kind.FAILURES.value, user_account(user))
    statements.execute("DELETE FROM counted WHERE kind = ? AND account = ?", failures)
    deleted = statements.execute('DELETE FROM suspended WHERE "user" = ?', (user,))
    return bool(deleted.rowcount)
