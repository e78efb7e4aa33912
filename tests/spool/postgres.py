"""A PostgreSQL server of the tests' own, and processes on a spool in it."""

from __future__ import annotations

import atexit
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest import SkipTest
from urllib.parse import quote

from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from bench.postgresql import INITDB_OPTIONS, PROGRAMS, as_postgres, missing_for_postgresql
from mta.testing import ThreadClock
from tests.processes import wait_until
from tests.spool.cases import EPOCH, Listener, tell_processes_apart

try:
    import psycopg

    from mta.spool.postgres.journal import outcomes_in as outcomes_in
    from mta.spool.postgres.spool import PostgresSpool
    from mta.spool.postgres.tools import PostgresTools
except ImportError:  # the extra is not installed
    psycopg = None  # type: ignore[assignment]


class Cluster:
    """A server in a folder of its own, with a socket there, and no port.

    It ends with the process that started it, whatever ends that.
    """

    def __init__(self, *settings: str, inside: Sequence[str] = ()) -> None:
        """`settings`: such as ``fsync=off``; `inside`: what begins its command."""
        if missing := missing_for_postgresql():
            raise SkipTest(missing)
        self.folder = Path(tempfile.mkdtemp(prefix="mta-pg-"))
        self._settings, self._inside = settings, inside
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        self.data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Make an empty one."""
        self.run("initdb", "--no-sync", *INITDB_OPTIONS, "--pgdata", str(self.data))

    def start(self) -> None:
        """Start it, and return when it answers."""
        options = [f"-c{each}" for each in ("listen_addresses=", *self._settings)]
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [
                *self._inside,
                *as_postgres("--pdeathsig", "QUIT"),
                *(str(PROGRAMS[-1] / "postgres"), "-D", str(self.data)),
                *(f"-k{self.folder}", *options),
            ],
            stdout=log,
            stderr=log,
        )
        wait_until(self.answers, "PostgreSQL answers")

    def follow(self, other: Cluster) -> None:
        """Be a standby of another one, with all that it has."""
        place = ("--host", str(other.folder), "--username", "mta", "--pgdata", str(self.data))
        self.run("pg_basebackup", "--write-recovery-conf", "--checkpoint=fast", *place)

    def answers(self) -> bool:
        """Tell whether it takes connections."""
        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: smart, fast, or immediate, as if the machine had lost power."""
        if self._process is not None:
            self.run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self.data))
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop it, and remove all of it."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL as its user."""
        command = [*as_postgres(), str(PROGRAMS[-1] / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder)

    def url(self, database: str, **options: str) -> str:
        """The address of a database."""
        parts = {"host": str(self.folder), **options}
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parts.items())
        return f"postgresql://mta@/{database}?{query}"

    def new_url(self) -> str:
        """The address of a spool that is not there yet."""
        name = f"t{secrets.token_hex(6)}"
        execute(self.url("postgres"), f"CREATE SCHEMA {name}")
        return self.url("postgres", options=f"-csearch_path={name}")


def execute(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Execute a statement in a database; returns the rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def own_cluster(case: SynchronousTestCase) -> Cluster:
    """A server that runs, for one test, which may stop it; gone after that."""
    made = Cluster()
    case.addCleanup(made.remove)
    made.make()
    made.start()
    return made


@cache
def cluster() -> Cluster:
    """The server that tests of a process share."""
    made = Cluster()
    made.make()
    made.start()
    atexit.register(made.remove)
    return made


class PostgresTestCase(SynchronousTestCase):
    """A database, and processes of one node on it."""

    def setUp(self) -> None:
        tell_processes_apart(self)
        self.clock = ThreadClock()
        self.url = self.cluster().new_url()
        self.path = Path(self.mktemp())
        self.pool = ThreadPool(1, 6)
        self.pool.start()
        self.addCleanup(self.pool.stop)
        self.wait = self.clock.wait
        self.listeners: dict[Any, Listener] = {}
        self.ended: set[Any] = set()

    def cluster(self) -> Cluster:
        """The server."""
        return cluster()

    def now(self) -> float:
        """Seconds since the epoch."""
        return EPOCH + self.clock.seconds()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    def folder(self) -> Path:
        """The folder of the node on which the next process is."""
        return self.path

    def process(self) -> PostgresSpool:
        """A process on the spool, stopped at the end if it was not before."""
        listener = Listener()
        folder = self.folder()
        spool = PostgresSpool(
            self.url, folder, self.clock, self.pool, listener, node=folder.name, now=self.now
        )
        spool.start()
        self.listeners[spool] = listener
        self.addCleanup(lambda: spool in self.ended or self.stop(spool))
        return spool

    def stop(self, spool: PostgresSpool) -> None:
        """End a process in an orderly way."""
        self.ended.add(spool)
        self.wait(spool.stop())

    def kill(self, spool: PostgresSpool) -> None:
        """End a process as a signal does: its lock is gone, and the database is not touched."""
        self.ended.add(spool)
        spool._owner.close()
        spool._rest()
        spool._pipe.close()
        self.wait(spool._committer.stop())
        spool._attempts.close()
        spool._close()

    def take_over(self, spool: PostgresSpool) -> None:
        """Let a process look for messages that others left."""
        self.wait(spool.take_over())

    def tools(self) -> PostgresTools:
        """The tools on the spool, closed at the end."""
        opened = PostgresTools(self.url, self.path, self.now)
        self.addCleanup(opened.close)
        return opened

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute a statement beside the processes; returns the rows."""
        return execute(self.url, statement, *values)


class NodesTestCase(PostgresTestCase):
    """The same, with each process on a node of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.nodes = 0

    def folder(self) -> Path:
        """See `PostgresTestCase.folder`."""
        self.nodes += 1
        return self.path / f"node{self.nodes}"

    def kill(self, spool: PostgresSpool) -> None:
        """End a process, and let its time run out."""
        super().kill(spool)
        self.sql("UPDATE owner SET alive_until = '-infinity' WHERE id = %s", spool._owner.number)
