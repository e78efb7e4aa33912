"""The places of shared tables: a folder, and a database that several nodes share."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import SkipTest, TestCase

from mta.shared_tables.files import TableFolder
from mta.shared_tables.interfaces import ITableStore
from tests.spool.postgres import cluster

try:
    from mta.spool.postgres.server import Server
    from mta.spool.postgres.shared_tables import DatabaseTables
except ImportError as error:  # the extra is not installed
    _missing: str | None = str(error)
else:
    _missing = None


class FolderStores(TestCase):
    """A folder; each store of it is that of another process."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def store(self) -> ITableStore:
        """The store of another process."""
        return TableFolder(self.folder)


class DatabaseStores(TestCase):
    """A database; each store of it is that of another node."""

    def setUp(self) -> None:
        super().setUp()
        if _missing is not None:
            raise SkipTest(_missing)
        self.url = cluster().new_url()

    def store(self) -> ITableStore:
        """The store of another node."""
        made = DatabaseTables(Server(self.url))
        self.addCleanup(made.close)
        return made
