"""Shared tables in PostgreSQL, for all nodes: what may be lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from zlib import crc32

from zope.interface import implementer

from mta.shared_tables.forms import TableForm, TableSet
from mta.shared_tables.interfaces import ISharedTables, IStatements, ITableStore
from mta.shared_tables.statements import Statements
from mta.spool.postgres.server import Connection, Server, Session

T = TypeVar("T")

# A node that stands still in the middle of a change keeps the others waiting for no longer.
_SETTINGS = """
SET synchronous_commit = off;
SET lock_timeout = '2s';
SET statement_timeout = '5s';
SET idle_in_transaction_session_timeout = '5s'
"""

_LOCKS = 0x6D746132 << 32  # the advisory locks of sets of tables: "mta2", and the sum of a name

# Rows are changed often: there is room beside them for newer versions, and they are vacuumed early.
_STORAGE = """
WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)
"""


@implementer(ITableStore)
class DatabaseTables:
    """The shared tables of a database, on one connection."""

    def __init__(self, server: Server) -> None:
        self._session = Session(server, setting=_SETTINGS)

    def open(self, tables: TableSet) -> TablesInDatabase:
        """See `ITableStore.open`."""
        return TablesInDatabase(self._session, tables)

    def close(self) -> None:
        """See `ITableStore.close`."""
        self._session.close()


@implementer(ISharedTables)
class TablesInDatabase:
    """One set of tables.

    As with a file, one process changes it at a time: a lock of the database sees to that.
    """

    exists = True

    def __init__(self, session: Session, tables: TableSet) -> None:
        self._session = session
        self._tables = tables
        self._lock = _LOCKS + crc32(tables.name.encode())
        self._is_made = False

    def change(self, action: Callable[[IStatements], T]) -> T:
        """See `ISharedTables.change`."""
        return self._session.call(self._changed, action)

    def _changed(self, connection: Connection, action: Callable[[IStatements], T]) -> T:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (self._lock,))
            if not self._is_made:
                for table in self._tables.tables:
                    _make(connection, table)
            result = action(Statements(connection, "%s"))
        self._is_made = True
        return result


def _make(connection: Connection, table: TableForm) -> None:
    """Make a table, unless it is there."""
    found = connection.execute("SELECT to_regclass(%s)", (table.name,)).fetchone()
    if found and found[0] is not None:
        return
    connection.execute(f"CREATE TABLE {table.name} ({table.columns}) {_STORAGE}".encode())
    if table.age:
        index = f"CREATE INDEX {table.name}_age ON {table.name} ({table.age})"
        connection.execute(index.encode())
