"""A PostgreSQL server for the spools that are measured, and ours on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.servers import Ours, Server, wait_until

try:
    import psycopg
except ImportError:  # the extra is not installed
    psycopg = None  # type: ignore[assignment]

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
# But for the folder.
INITDB_OPTIONS = ("--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=mta")

# All else has the default: each commit is synced, and autovacuum runs.
_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": "",
        "shared_buffers": "256MB",
        "max_wal_size": "4GB",
        "log_min_messages": "panic",
    }
)


def missing_for_postgresql() -> str:
    """What this machine lacks for PostgreSQL; empty: nothing."""
    if not PROGRAMS:
        return "PostgreSQL is not installed"
    return "psycopg is not installed" if psycopg is None else ""


class PostgreSQL(Server):
    """A server in a folder of its own, with a socket there and no port."""

    name = "PostgreSQL"

    def __init__(self, folder: Path, **settings: str) -> None:
        """Make and start it; `settings`: of postgresql.conf."""
        folder.mkdir()
        self._folder = folder
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        initdb = [*_command("initdb"), *INITDB_OPTIONS, f"--pgdata={folder}/data"]
        subprocess.run(initdb, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        said = [f"-c{name}={value}" for name, value in {**_SETTINGS, **settings}.items()]
        super().__init__([*_command("postgres"), f"-D{folder}/data", f"-k{folder}", *said], folder)
        wait_until(self._answers, "PostgreSQL is ready")

    def url(self, database: str = "postgres") -> str:
        """The address of a database."""
        return f"postgresql://mta@/{database}?host={self._folder}"

    def new_database(self) -> str:
        """Make one; returns its address."""
        with self.connected() as connection:
            (number,) = connection.execute("SELECT count(*) FROM pg_database").fetchone()
            name = f"spool{number}"
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def statement_seconds(self) -> float:
        """The time that all statements took so far, by ``pg_stat_statements``.

        That has to be in `shared_preload_libraries`.
        """
        with self.connected() as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            found = connection.execute(
                "SELECT sum(total_exec_time) FROM pg_stat_statements"
                " WHERE query NOT LIKE '%pg_stat_statements%'"
            )
            return float(found.fetchone()[0]) / 1000

    def log_position(self) -> int:
        """The octets that the write-ahead log has had so far."""
        with self.connected() as connection:
            found = connection.execute("SELECT pg_current_wal_lsn() - '0/0'")
            return int(found.fetchone()[0])

    def checkpoint(self) -> None:
        """Write all that is only in the log so far."""
        with self.connected() as connection:
            connection.execute("CHECKPOINT")

    def connected(self, url: str = "") -> Any:
        """A connection to a database, which ends with the block."""
        return psycopg.connect(url or self.url(), autocommit=True)

    def stop(self) -> None:
        """End it, whoever is connected."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        super().stop()

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError("PostgreSQL does not start")
        try:
            self.connected().close()
        except psycopg.OperationalError:
            return False
        return True


def as_postgres(*more: str) -> list[str]:
    """The beginning of a command that PostgreSQL's user runs: the server refuses root.

    `more`: options of ``setpriv``.
    """
    if os.geteuid() != 0:
        return ["setpriv", *more] if more else []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *more]


def _command(program: str) -> list[str]:
    return [*as_postgres(), str(PROGRAMS[-1] / program)]


class OnPostgreSQL(Ours):
    """This program with its spool in a database; its CPU time is that of both."""

    def __init__(self, configuration: Path, database: PostgreSQL, core: int | None = None) -> None:
        """`core`: see `Ours`; the database may use any."""
        self._database = database
        super().__init__(configuration, core)

    def cpu_seconds(self) -> float:
        """See `Server.cpu_seconds`."""
        return super().cpu_seconds() + self._database.cpu_seconds()
