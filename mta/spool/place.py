"""The place of a spool: a folder or a database.

Whatever opens a spool by the configuration does so here.  What PostgreSQL needs is imported where
the configuration names it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mta.settings import POSTGRES, Settings
from mta.shared_tables.files import TableFolder
from mta.spool import inspection
from mta.spool.database import SpoolUnusable
from mta.spool.folder import Folder

# Most commands begin without Twisted, and look at the spool alone.
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from twisted.python.threadpool import ThreadPool

    from mta.interfaces import ISpoolListener
    from mta.shared_tables.interfaces import ITableStore
    from mta.spool.checking import Finding
    from mta.spool.interfaces import IListing, IStandingHolds, ITools
    from mta.spool.nodes import NodeProcess
    from mta.spool.process_spool import ProcessSpool


@dataclass(frozen=True, slots=True)
class SpoolPlace:
    """A spool that the configuration names.

    `folder`: what this node keeps on its own disk, which is all of the spool where there is no
    `database`.  `node`: the name of this node.  `reserve`: octets of the disk that new mail leaves
    free.
    """

    folder: Path
    database: str = ""
    node: str = ""
    reserve: int = 0

    @classmethod
    def of(cls, settings: Settings) -> SpoolPlace:
        """The place that the configuration names."""
        return cls(
            Path(settings.spool), settings.database, settings.node, settings.limits.free_space
        )

    @property
    def name(self) -> str:
        """The place as people know it, without a password."""
        if not self.database:
            return str(self.folder)
        return str(self._server().name)

    def opened(
        self,
        reactor: Any,
        pool: ThreadPool,
        listener: ISpoolListener,
        **more: Any,
    ) -> ProcessSpool:
        """The spool of this process, to be started.  Raises SpoolUnusable.

        `more`: see `SqliteSpool`.
        """
        if self.database:
            spool: ProcessSpool = _postgres("spool").PostgresSpool(
                self.database, self.folder, reactor, pool, listener, node=self.node_name, **more
            )
            return spool
        from mta.spool.sqlite import SqliteSpool

        return SqliteSpool(self.folder, reactor, pool, listener, **more)

    def tools(self) -> ITools:
        """The spool as a command changes it.  Raises SpoolUnusable or OSError."""
        if self.database:
            tools: ITools = _postgres("tools").PostgresTools(
                self.database, self.folder, reserve=self.reserve
            )
            return tools
        from mta.spool.tools import SpoolTools

        return SpoolTools(self.folder, reserve=self.reserve)

    def listing(self) -> IListing:
        """The spool as a command looks at it.  Raises SpoolUnusable or OSError."""
        if self.database:
            listing: IListing = _postgres("listing").PostgresListing(self._session())
            return listing
        from mta.spool.listing import Listing

        return Listing(self.folder)

    def holds(self) -> IStandingHolds:
        """The standing holds."""
        if self.database:
            holds: IStandingHolds = _postgres("holds").PostgresHolds(self._session())
            return holds
        from mta.spool.holds import StandingHolds

        return StandingHolds(Folder(self.folder))

    def shared_tables(self) -> ITableStore:
        """The place of what all processes count and remember.  Raises SpoolUnusable."""
        if self.database:
            store: ITableStore = _postgres("shared_tables").DatabaseTables(self._server())
            return store
        return TableFolder(self.folder)

    @property
    def node_name(self) -> str:
        """The name of this node."""
        return self.node or socket.gethostname()

    def exists(self) -> bool:
        """Tell whether a server has made the spool.  Raises SpoolUnusable or OSError."""
        if not self.database:
            return Folder(self.folder).database.exists()
        server = self._server()
        with server.connect() as connection, server.as_oserror():
            return bool(_postgres("schema").verify(server, connection))

    @classmethod
    def named(cls, text: str, settings: Settings) -> SpoolPlace:
        """The place that a person names: a folder, or a URL."""
        place = cls.of(settings)
        if text.startswith(POSTGRES):
            return replace(place, database=text)
        return replace(place, folder=Path(text).absolute(), database="")

    def is_in_use(self) -> bool:
        """Tell whether a server works with the spool now.  Raises SpoolUnusable or OSError."""
        if self.database:
            return self.exists() and any(each.is_alive for each in self.nodes())
        return self.exists() and inspection.is_in_use(self.folder)

    def nodes(self) -> Sequence[NodeProcess]:
        """The processes of the nodes; none where the spool is a folder.

        Raises SpoolUnusable or OSError.
        """
        if not self.database:
            return ()
        server = self._server()
        with server.connect() as connection, server.as_oserror():
            found: Sequence[NodeProcess] = _postgres("nodes").processes(connection)
            return found

    def findings(self, *, repair: bool) -> Iterator[Finding]:
        """Look through everything in the spool.  Raises SpoolUnusable or OSError."""
        if self.database:
            checker = _postgres("checking").PostgresChecker(self._session(), repair=repair)
            found: Iterator[Finding] = checker.findings()
            return found
        from mta.spool.checking import Checker

        return Checker(self.folder, repair=repair).findings()

    def weaknesses(self, processes: int) -> Sequence[str]:
        """The settings of the database that may cost mail.

        `processes`: of this node.  Raises SpoolUnusable or OSError.
        """
        if not self.database:
            return ()
        server = self._server()
        with server.connect() as connection, server.as_oserror():
            durability = _postgres("durability")
            found: Sequence[str] = durability.weaknesses(connection, self.node_name, processes)
            return found

    def _server(self) -> Any:
        return _postgres("server").Server(self.database)

    def _session(self) -> Any:
        return _postgres("server").Session(self._server())


def _postgres(name: str) -> Any:
    """A module for PostgreSQL.  Raises SpoolUnusable where its driver is missing."""
    try:
        return import_module(f"mta.spool.postgres.{name}")
    except ImportError as error:
        raise SpoolUnusable(
            f"a spool in PostgreSQL needs psycopg: pip install 'psycopg[binary]' ({error})"
        ) from None
