"""The statements of a transaction, over a connection of either database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from zope.interface import implementer

from mta.shared_tables.interfaces import IStatements


@implementer(IStatements)
class Statements:
    """`mark` stands for a value in the statements of this database."""

    def __init__(self, connection: Any, mark: str = "?") -> None:
        self._connection = connection
        self._mark = mark

    def execute(self, statement: str, values: Sequence[object] = ()) -> Any:
        """See `IStatements.execute`."""
        return self._connection.execute(statement.replace("?", self._mark), values)

    def execute_each(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """See `IStatements.execute_each`."""
        self._connection.cursor().executemany(statement.replace("?", self._mark), rows)
