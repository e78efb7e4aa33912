"""The form of shared tables, and the bound that keeps one small.

All that is said to them is understood by SQLite and by PostgreSQL.
"""

from __future__ import annotations

from dataclasses import dataclass

from mta.shared_tables.interfaces import IStatements

MAX_ROWS = 200_000  # of a table that `make_room` bounds: about 20 MB
SPARED_ROWS = 1000  # as many at least are forgotten at a time
MAX_SKEW = 60.0  # seconds: so much the clocks of nodes may differ


@dataclass(frozen=True, slots=True)
class TableForm:
    """One table.

    `columns` are in SQL, with the primary key.  `age`: the columns of an index, by which rows are
    forgotten; empty: there is none.
    """

    name: str
    columns: str
    age: str = ""


@dataclass(frozen=True, slots=True)
class TableSet:
    """Tables that change together.  In a folder they are a file of that name."""

    name: str
    tables: tuple[TableForm, ...]


def make_room(statements: IStatements, table: str, key: str, worth: str, now: float) -> None:
    """Forget rows of a table that is full.

    Those go first whose time, in the column ``until``, is over, then those of the least `worth`, a
    column, that end first.  `key` are the columns of the primary key.
    """
    (rows,) = statements.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 (ours)
    if rows < MAX_ROWS:
        return
    delete = f"DELETE FROM {table} WHERE"  # noqa: S608 (our own words)
    gone = statements.execute(f"{delete} until < ?", (now,)).rowcount
    if gone < SPARED_ROWS:
        least = f"SELECT {key} FROM {table} ORDER BY {worth}, until LIMIT ?"  # noqa: S608
        statements.execute(f"{delete} ({key}) IN ({least})", (SPARED_ROWS,))
