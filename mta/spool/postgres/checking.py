"""Looks through everything in a spool in PostgreSQL.

Servers may be up: what they do meanwhile is not taken for a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from mta.queued import IContent
from mta.spool import queue_id
from mta.spool.checking import Finding
from mta.spool.loading import ContentKey
from mta.spool.postgres import owner_rows, rows
from mta.spool.postgres.database_clock import clock_of
from mta.spool.postgres.holds import standing
from mta.spool.postgres.loading import load
from mta.spool.postgres.server import Connection, Session, transaction

_BATCH_SIZE = 500  # messages read at once: bounds the memory

# Rows that no message has, by table.  A message is there when it has a row in `schedule`.
_LOST = {
    "message": "DELETE FROM message AS t WHERE NOT EXISTS"
    " (SELECT FROM schedule AS s WHERE s.id = t.id) RETURNING t.id",
    "recipient": "DELETE FROM recipient AS t WHERE NOT EXISTS"
    " (SELECT FROM schedule AS s WHERE s.id = t.message) RETURNING t.message",
    "chunk": "DELETE FROM chunk AS t WHERE NOT EXISTS"
    " (SELECT FROM schedule AS s WHERE s.id = t.message) AND NOT EXISTS"
    " (SELECT FROM upload AS u JOIN owner AS o ON o.id = u.owner WHERE u.message = t.message)"
    " RETURNING t.message",
    "upload": "DELETE FROM upload AS t WHERE NOT EXISTS"
    " (SELECT FROM owner AS o WHERE o.id = t.owner) RETURNING t.message",
}


class _NothingChanges(Exception):
    """Rolls back what was only tried."""


class PostgresChecker:
    """Checks a spool.  Everything blocks.

    `now`: seconds since the epoch, instead of the database's.
    """

    def __init__(
        self, session: Session, *, repair: bool = False, now: Callable[[], float] | None = None
    ) -> None:
        """`repair`: mend what can be mended without losing anything."""
        self._session = session
        self._repair = repair
        self._now = now or clock_of(session)

    def findings(self) -> Iterator[Finding]:
        """Find all that is wrong.  Raises OSError where the spool can't be read at all."""
        yield from self._holds()
        yield from self._messages()
        for number in self._session.call(self._leases):
            problem = "it is leased to a process that is gone"
            yield Finding(queue_id.encode(number), problem, self._repair)
        for table, statement in _LOST.items():
            for number in sorted(set(self._session.call(self._lost, statement))):
                problem = f"there is a row in `{table}`, and no message"
                yield Finding(queue_id.encode(number), problem, self._repair)

    def _holds(self) -> Iterator[Finding]:
        """Find standing holds that can't be read: no mail is taken, then."""
        try:
            self._session.call(standing)
        except (ValueError, TypeError) as error:
            yield Finding("holds", f"the standing holds can't be read: {error}")

    def _messages(self) -> Iterator[Finding]:
        """Find messages that can't be delivered as they are."""
        after = -1
        while numbers := self._session.call(_next_ids, after):
            damaged = self._session.call(load, numbers, _no_content).damaged
            # What is gone when it is looked at again was removed meanwhile.
            for number, problem in self._session.call(
                load, sorted(damaged), _no_content
            ).damaged.items():
                yield Finding(queue_id.encode(number), problem)
            after = numbers[-1]

    def _leases(self, connection: Connection) -> list[int]:
        """Find messages leased to owners that are gone, to free them."""
        with transaction(connection):
            unknown = owner_rows.unknown(connection)
            found = owner_rows.leased(connection, unknown) if unknown else []
            if unknown and self._repair:
                owner_rows.free_leased(connection, unknown, self._now())
        return found

    def _lost(self, connection: Connection, statement: str) -> list[int]:
        """Find rows without a message, and delete them if wanted."""
        found: list[int] = []
        try:
            with transaction(connection):
                found = rows.ids(connection.execute(statement.encode()))
                if not self._repair:
                    raise _NothingChanges
        except _NothingChanges:
            pass
        return found


def _next_ids(connection: Connection, after: int) -> list[int]:
    query = "SELECT id FROM schedule WHERE id > %s ORDER BY id LIMIT %s"
    return rows.ids(connection.execute(query, (after, _BATCH_SIZE)))


class _Length:
    """Stands for content, of which only the length is looked at."""

    def __init__(self, key: ContentKey) -> None:
        self.size = key.size


def _no_content(key: ContentKey) -> IContent:
    return cast("IContent", _Length(key))
