"""The counts for reports, in a table that all processes share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from mta.authentication.reports.rows import CheckResult, Published, Row
from mta.shared_tables.forms import TableForm, TableSet
from mta.shared_tables.interfaces import IStatements, ITableStore

MAX_DOMAINS = 10_000  # policy domains of a day: each is a message that we write
MAX_ROWS = 5_000  # of a policy domain and a day: strangers can make each message another row

TABLES = TableSet(
    "reports",
    (
        TableForm(
            "policies",
            "day INTEGER, domain TEXT, published TEXT NOT NULL,"
            " claimed DOUBLE PRECISION NOT NULL DEFAULT 0, PRIMARY KEY (day, domain)",
        ),
        TableForm(
            "rows",
            "day INTEGER, domain TEXT, row TEXT, count BIGINT NOT NULL,"
            " PRIMARY KEY (day, domain, row)",
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Counted:
    """The number of like messages of a day, counted from the epoch."""

    day: int
    published: Published
    row: Row
    count: int


class ReportStore:
    """The counts of a spool.  All methods block, and raise OSError."""

    def __init__(self, store: ITableStore) -> None:
        self._tables = store.open(TABLES)

    def add(self, counted: Iterable[Counted]) -> int:
        """Add counts; returns how many messages had no room."""
        return self._tables.change(partial(_add_all, counted=[*counted]))

    def waiting(
        self, before: int, now: float = 0.0, pause: float = -1.0
    ) -> Sequence[tuple[int, str]]:
        """The days before one, and domains, of reports.

        Those that were claimed within the `pause` before are left out.
        """
        if not self._tables.exists:
            return []
        select = (
            "SELECT day, domain FROM policies WHERE day < ?"
            " AND NOT claimed BETWEEN ? AND ? ORDER BY day, domain"
        )
        values = (before, now - pause, now + pause)
        return self._tables.change(lambda each: each.execute(select, values).fetchall())

    def claim(self, day: int, domain: str, now: float, pause: float) -> bool:
        """Claim a report; returns whether no other did within the `pause` before."""
        update = (
            "UPDATE policies SET claimed = ? WHERE day = ? AND domain = ?"
            " AND NOT claimed BETWEEN ? AND ?"
        )
        # The clock of another node may be ahead of ours.
        values = (now, day, domain, now - pause, now + pause)
        return self._tables.change(lambda each: bool(each.execute(update, values).rowcount))

    def read(self, day: int, domain: str) -> tuple[Published, Sequence[tuple[Row, int]]] | None:
        """The policy and the rows of a report, the most messages first.

        None: it was sent.
        """
        found, rows = self._tables.change(partial(_read, day=day, domain=domain))
        if found is None:
            return None
        return _published(found[0]), [(_row(text), count) for text, count in rows]

    def remove(self, day: int, domain: str) -> None:
        """Forget a report."""
        self._tables.change(partial(_remove, day=day, domain=domain))


def _read(statements: IStatements, day: int, domain: str) -> tuple[Any, Sequence[Any]]:
    query = "SELECT published FROM policies WHERE day = ? AND domain = ?"
    found = statements.execute(query, (day, domain)).fetchone()
    query = "SELECT row, count FROM rows WHERE day = ? AND domain = ? ORDER BY count DESC"
    return found, statements.execute(query, (day, domain)).fetchall()


def _remove(statements: IStatements, day: int, domain: str) -> None:
    for table in ("rows", "policies"):
        delete = f"DELETE FROM {table} WHERE day = ? AND domain = ?"  # noqa: S608
        statements.execute(delete, (day, domain))


def _add_all(statements: IStatements, counted: Iterable[Counted]) -> int:
    return sum(each.count for each in counted if not _add(statements, each))


def _add(statements: IStatements, counted: Counted) -> bool:
    day, domain = counted.day, counted.published.domain
    row = json.dumps(asdict(counted.row))
    key = (day, domain, row)
    update = "UPDATE rows SET count = count + ? WHERE day = ? AND domain = ? AND row = ?"
    if statements.execute(update, (counted.count, *key)).rowcount == 0:
        count = "SELECT count(*) FROM rows WHERE day = ? AND domain = ?"
        [present] = statements.execute(count, (day, domain)).fetchone()
        count = "SELECT count(*) FROM policies WHERE day = ?"
        is_new = not present and statements.execute(count, (day,)).fetchone()[0] >= MAX_DOMAINS
        if present >= MAX_ROWS or is_new:
            return False
        statements.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", (*key, counted.count))
    statements.execute(
        "INSERT INTO policies (day, domain, published) VALUES (?, ?, ?)"
        " ON CONFLICT (day, domain) DO UPDATE SET published = excluded.published"
        " WHERE policies.published <> excluded.published",
        (day, domain, json.dumps(asdict(counted.published))),
    )
    return True


def _published(text: str) -> Published:
    values: dict[str, Any] = json.loads(text)
    return Published(**{**values, "rua": tuple(values["rua"])})


def _row(text: str) -> Row:
    values: dict[str, Any] = json.loads(text)
    values["signatures"] = tuple(CheckResult(**each) for each in values["signatures"])
    values["spf"] = CheckResult(**values["spf"]) if values["spf"] else None
    return Row(**values)
