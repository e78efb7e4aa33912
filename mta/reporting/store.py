"""The counts for reports, in a table that all processes share."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mta.authentication.reports.rows import CheckResult, Published, Row
from mta.shared_table import SharedTable

NAME = "reports.sqlite"
MAX_DOMAINS = 10_000  # policy domains of a day: each is a message that we write
MAX_ROWS = 5_000  # of a policy domain and a day: strangers can make each message another row

_TABLES = """
CREATE TABLE IF NOT EXISTS policies (
    day INTEGER, domain TEXT, published TEXT NOT NULL, claimed REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (day, domain)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
    day INTEGER, domain TEXT, row TEXT, count INTEGER NOT NULL,
    PRIMARY KEY (day, domain, row)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """The number of like messages of a day, counted from the epoch."""

    day: int
    published: Published
    row: Row
    count: int


class ReportStore:
    """The counts of a spool.  All methods block, and raise OSError."""

    def __init__(self, spool: Path) -> None:
        self._table = SharedTable(spool / NAME, _TABLES)

    def add(self, counted: Iterable[Counted]) -> int:
        """Add counts; returns how many messages had no room."""
        with self._table.transaction() as connection:
            return sum(each.count for each in counted if not _add(connection, each))

    def waiting(
        self, before: int, now: float = 0.0, pause: float = -1.0
    ) -> Sequence[tuple[int, str]]:
        """The days before one, and domains, of reports.

        Those that were claimed within the `pause` before are left out.
        """
        if not self._table.path.exists():
            return []
        with self._table.transaction() as connection:
            query = (
                "SELECT day, domain FROM policies WHERE day < ?1"
                " AND NOT claimed BETWEEN ?2 - ?3 AND ?2 ORDER BY day, domain"
            )
            return connection.execute(query, (before, now, pause)).fetchall()

    def claim(self, day: int, domain: str, now: float, pause: float) -> bool:
        """Claim a report; returns whether no other did within the `pause` before."""
        with self._table.transaction() as connection:
            update = (
                "UPDATE policies SET claimed = ?1 WHERE day = ?2 AND domain = ?3"
                " AND NOT claimed BETWEEN ?1 - ?4 AND ?1"
            )
            return connection.execute(update, (now, day, domain, pause)).rowcount == 1

    def read(self, day: int, domain: str) -> tuple[Published, Sequence[tuple[Row, int]]] | None:
        """The policy and the rows of a report, the most messages first.

        None: it was sent.
        """
        with self._table.transaction() as connection:
            query = "SELECT published FROM policies WHERE day = ? AND domain = ?"
            found = connection.execute(query, (day, domain)).fetchone()
            if found is None:
                return None
            query = "SELECT row, count FROM rows WHERE day = ? AND domain = ? ORDER BY count DESC"
            rows = connection.execute(query, (day, domain)).fetchall()
        return _published(found[0]), [(_row(text), count) for text, count in rows]

    def remove(self, day: int, domain: str) -> None:
        """Forget a report."""
        with self._table.transaction() as connection:
            for table in ("rows", "policies"):
                delete = f"DELETE FROM {table} WHERE day = ? AND domain = ?"  # noqa: S608
                connection.execute(delete, (day, domain))


def _add(connection: sqlite3.Connection, counted: Counted) -> bool:
    day, domain = counted.day, counted.published.domain
    row = json.dumps(asdict(counted.row))
    key = (day, domain, row)
    update = "UPDATE rows SET count = count + ? WHERE day = ? AND domain = ? AND row = ?"
    if connection.execute(update, (counted.count, *key)).rowcount == 0:
        count = "SELECT count(*) FROM rows WHERE day = ? AND domain = ?"
        [present] = connection.execute(count, (day, domain)).fetchone()
        count = "SELECT count(*) FROM policies WHERE day = ?"
        is_new = not present and connection.execute(count, (day,)).fetchone()[0] >= MAX_DOMAINS
        if present >= MAX_ROWS or is_new:
            return False
        connection.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", (*key, counted.count))
    connection.execute(
        "INSERT INTO policies (day, domain, published) VALUES (?1, ?2, ?3)"
        " ON CONFLICT DO UPDATE SET published = ?3 WHERE published <> ?3",
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
