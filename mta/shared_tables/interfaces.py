"""The seams of shared tables.

They are a transaction, a set of tables, the place of all sets, and documents that nodes copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from mta.shared_tables.forms import TableSet

T = TypeVar("T")


class IStatements(Interface):
    """The statements of one transaction, with ``?`` for each value."""

    def execute(statement: str, values: Sequence[object] = ()) -> Any:
        """Execute one; returns its cursor: `fetchone`, `fetchall`, `rowcount`."""

    def execute_each(statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Execute one for each of these rows of values."""


class ISharedTables(Interface):
    """A set of tables.  Methods block."""

    exists: bool = Attribute("whether anything may ever have been written")

    def change(action: Callable[[IStatements], T]) -> T:
        """Call a function within a transaction, and return its result.

        No other process changes the set meanwhile.  The function may be called again where a
        connection broke.  Raises OSError.
        """


class ITableStore(Interface):
    """The place where all processes find shared tables."""

    def open(tables: TableSet) -> ISharedTables:
        """Return a set of tables, which its first change makes."""

    def close() -> None:
        """Close what is open, for good.  Blocks."""


class IDocuments(Interface):
    """Small documents in the folder of a node, by name.  Methods block, and raise OSError."""

    def stamps() -> Mapping[str, object]:
        """The names of all, with signs of their last changes."""

    def read(name: str) -> bytes:
        """One of them, empty where there is none."""

    def take(documents: Mapping[str, bytes]) -> None:
        """Have these from now on, and those that are empty no more."""
