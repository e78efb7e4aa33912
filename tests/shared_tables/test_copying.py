"""Shared tables that are copied, between a folder and a database, there and back."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import mta
from mta.access.account_table import TABLES as ACCOUNTS
from mta.commands.spool import _copied_tables
from mta.inspectors.greylist_table import TABLES as GREYLIST
from mta.peers.node_states import TABLES as PEERS
from mta.shared_tables import copying
from mta.shared_tables.copies import TABLES as COPIES
from mta.shared_tables.copying import TableCopy
from mta.shared_tables.forms import TableSet
from mta.shared_tables.interfaces import IStatements, ITableStore
from tests.shared_tables.stores import DatabaseStores, FolderStores

CLIENTS = [(bytes([number, 0]), number / 3, 2.0**40, number % 2) for number in range(5)]
COUNTED = [("recipients", f"user{number}", slot, 7) for number in range(2) for slot in (3, 4)]


class CopyTests(SynchronousTestCase):
    """What was in one place is in the other."""

    def setUp(self) -> None:
        self.patch(copying, "BATCH_SIZE", 2)

    def places(self) -> tuple[ITableStore, ITableStore, ITableStore]:
        """A folder, a database, and another folder."""
        found: list[Any] = [FolderStores(), DatabaseStores(), FolderStores()]
        for each in found:
            each.setUp()
            self.addCleanup(each.doCleanups)
        folder, database, back = (each.store() for each in found)
        return folder, database, back

    def test_there_and_back(self) -> None:
        """All rows of all tables, octets and numbers as they were."""
        places = self.places()
        put(places[0], GREYLIST, "client", CLIENTS)
        put(places[0], ACCOUNTS, "counted", COUNTED)
        put(places[0], ACCOUNTS, "suspended", [("bob", 0.5, "too much")])
        for source, target in pairwise(places):
            copy = TableCopy(_copied_tables(), source, target)
            self.assertEqual(copy.count(), len(CLIENTS) + len(COUNTED) + 1)
            self.assertEqual(list(copy.portions()), [2, 2, 1, 2, 2, 1])
            self.assertEqual(rows(target, GREYLIST, "client"), CLIENTS)
            self.assertEqual(rows(target, ACCOUNTS, "counted"), COUNTED)
            self.assertEqual(rows(target, ACCOUNTS, "suspended"), [("bob", 0.5, "too much")])

    def test_nothing_new(self) -> None:
        """What the target has already stays; what was never written is not made."""
        folder, database, back = self.places()
        put(folder, GREYLIST, "client", CLIENTS)
        newer = (CLIENTS[0][0], 9.0, 9.0, 1)
        put(database, GREYLIST, "client", [newer])
        list(TableCopy(_copied_tables(), folder, database).portions())
        self.assertEqual(rows(database, GREYLIST, "client"), [newer, *CLIENTS[1:]])
        self.assertFalse(folder.open(ACCOUNTS).exists)
        self.assertFalse(back.open(GREYLIST).exists)

    def test_none_is_forgotten(self) -> None:
        """Each set of tables is copied, or is told anew by the nodes."""
        root = Path(mta.__file__).parent
        found = set()
        for path in root.rglob("*.py"):
            if " = TableSet(" in path.read_text():
                name = ".".join(path.relative_to(root.parent).with_suffix("").parts)
                found.add(importlib.import_module(name).TABLES.name)
        known = (*_copied_tables(), PEERS, COPIES)
        self.assertEqual(found, {each.name for each in known})


def put(store: ITableStore, tables: TableSet, name: str, found: list[Any]) -> None:
    """Put rows into a table."""
    values = ", ".join("?" * len(found[0]))

    def insert(statements: IStatements) -> None:
        statements.execute_each(f"INSERT INTO {name} VALUES ({values})", found)

    store.open(tables).change(insert)


def rows(store: ITableStore, tables: TableSet, name: str) -> list[Any]:
    """All rows of a table, in the order of its key."""
    select = f"SELECT * FROM {name} ORDER BY 1, 2, 3"
    return [*map(tuple, store.open(tables).change(lambda each: each.execute(select).fetchall()))]
