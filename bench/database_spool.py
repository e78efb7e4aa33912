"""A spool in PostgreSQL, without a server of ours: filled, and claimed from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from bench import waiting
from mta.spool import queue_id
from mta.spool.jobs import Job
from mta.spool.postgres import rows, schema
from mta.spool.postgres.claims import PostgresClaims
from mta.spool.postgres.content import PostgresContent
from mta.spool.postgres.cursor import Cursors
from mta.spool.postgres.server import Connection, Server, Session, transaction
from mta.spool.postgres.writer import PostgresWriter
from mta.sync import result_of

BATCH = 100  # messages that are claimed at once

# As attempts do: each message is leased, and removed when it was delivered.
_PASS = """
UPDATE schedule SET due = 0 WHERE owner IS NULL;
UPDATE schedule SET owner = 1, due = 'Infinity' WHERE owner IS NULL;
DELETE FROM schedule; DELETE FROM message; DELETE FROM recipient
"""


def fill(url: str, number: int) -> None:
    """Put so many messages into a spool, due in a day; the server has no statistics of it yet."""
    with _connected(url) as connection:
        for arrivals in waiting.portions(number):
            with transaction(connection):
                rows.insert(connection, arrivals)


def leave_dead_rows(url: str, number: int) -> None:
    """Let so many messages go through an empty spool."""
    fill(url, number)
    with _connected(url) as connection:
        for statement in _PASS.split(";"):
            connection.execute(statement.encode())


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    server = Server(url)
    with server.connect() as connection:
        schema.prepare(server, connection)
        yield connection


@contextmanager
def writer_on(url: str) -> Iterator[PostgresWriter]:
    """The connection that commits, of a new owner."""
    writer = PostgresWriter(Server(url), "bench", time.time)
    writer.open(queue_id.QueueIds(time.time).next())
    yield writer
    writer.close()


class _AtOnce:
    """A committer without a thread."""

    def __init__(self, writer: PostgresWriter) -> None:
        self._writer = writer

    def submit(self, job: Job) -> Deferred[Any]:
        """Commit one job alone."""
        return succeed(self._writer.commit([job])[0])


class Claimer:
    """An owner that claims, as the process of a server does in its thread."""

    def __init__(self, url: str) -> None:
        server = Server(url)
        owner = queue_id.QueueIds(time.time).next()
        self._writer = PostgresWriter(server, "bench", time.time)
        self._writer.open(owner)
        source = PostgresContent(Session(server), lambda function, *args: succeed(function(*args)))
        clock = Clock()
        clock.seconds = time.monotonic  # type: ignore[method-assign]
        committer: Any = _AtOnce(self._writer)
        self._claims = PostgresClaims(committer, owner, source, Cursors(clock))

    def claim(self) -> float:
        """Claim a batch of what will be due in two days; returns the seconds that it took."""
        began = time.monotonic()
        due = time.time() + 2 * waiting.LATER
        loaded = result_of(self._claims.due(due, BATCH, suspects=True))
        took = time.monotonic() - began
        if len(loaded.messages) != BATCH:
            raise RuntimeError(f"PostgreSQL: {len(loaded.messages)} messages were claimed")
        return took

    def close(self) -> None:
        """End it."""
        self._writer.close()
