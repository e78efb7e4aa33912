"""Copies sets of shared tables from one place to another.

A row that is there already stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from mta.shared_tables.forms import TableForm, TableSet
from mta.shared_tables.interfaces import ISharedTables, IStatements, ITableStore

BATCH_SIZE = 1000  # rows of one transaction: bounds the memory

_KEY = re.compile(r"PRIMARY KEY \((.*?)\)")  # of several columns, which are the first ones


class TableCopy:
    """The copying of sets of tables.  Everything blocks, and raises OSError."""

    def __init__(self, sets: Sequence[TableSet], source: ITableStore, target: ITableStore) -> None:
        places = [(each, source.open(each), target.open(each)) for each in sets]
        self._places = [(each, old, new) for each, old, new in places if old.exists]

    def count(self) -> int:
        """Count the rows that are to be copied."""
        return sum(
            old.change(partial(_count, table=table))
            for each, old, _ in self._places
            for table in each.tables
        )

    def portions(self) -> Iterator[int]:
        """Copy all, in portions; gives the number of rows in each."""
        for each, old, new in self._places:
            for table in each.tables:
                yield from _copied(table, old, new)


def _copied(table: TableForm, old: ISharedTables, new: ISharedTables) -> Iterator[int]:
    last: Sequence[Any] = ()
    while rows := old.change(partial(_read, table=table, last=last)):
        new.change(partial(_write, table=table, rows=rows))
        last = rows[-1][: len(_key(table))]
        yield len(rows)


def _count(statements: IStatements, table: TableForm) -> int:
    select = f"SELECT count(*) FROM {table.name}"  # noqa: S608 (our own words)
    (count,) = statements.execute(select).fetchone()
    return int(count)


def _read(statements: IStatements, table: TableForm, last: Sequence[Any]) -> Sequence[Any]:
    """The rows behind the key of the last one."""
    key = ", ".join(_key(table))
    behind = f"WHERE ({key}) > ({', '.join('?' * len(last))})" if last else ""
    select = f"SELECT * FROM {table.name} {behind} ORDER BY {key} LIMIT ?"  # noqa: S608 (as above)
    rows: Sequence[Any] = statements.execute(select, (*last, BATCH_SIZE)).fetchall()
    return rows


def _write(statements: IStatements, table: TableForm, rows: Sequence[Any]) -> None:
    values = ", ".join("?" * len(rows[0]))
    insert = f"INSERT INTO {table.name} VALUES ({values}) ON CONFLICT DO NOTHING"  # noqa: S608
    statements.execute_each(insert, rows)


def _key(table: TableForm) -> Sequence[str]:
    """The columns of the primary key."""
    found = _KEY.search(table.columns)
    return found[1].split(", ") if found else [table.columns.split()[0]]
