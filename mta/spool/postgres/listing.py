"""The queue in PostgreSQL as the operator lists it.

Content is not touched, nothing is changed, and nothing of Twisted is needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from zope.interface import implementer

from mta.mail import Mailbox
from mta.queued import Filter, HistoryEntry
from mta.spool import queue_id
from mta.spool.interfaces import IListing
from mta.spool.listing import (
    DAMAGED,
    ON_HOLD,
    Listed,
    ListedRecipient,
    filter_values,
    numbers,
)
from mta.spool.postgres.database_clock import clock_of
from mta.spool.postgres.server import Connection, Session
from mta.spool.schema import Hold

_FIRST_BATCH_SIZE = 20  # messages: the first lines are wanted at once
_BATCH_SIZE = 1000  # messages: bounds the memory

# ACTIVE is what a living owner has leased; a dead one's mail only waits to be taken over.
_FIND = f"""
SELECT * FROM (
    SELECT s.id, CASE
            WHEN o.id IS NOT NULL THEN 'active'
            WHEN s.on_hold = {Hold.DAMAGED:d} THEN 'damaged'
            WHEN s.on_hold <> 0 OR NOT EXISTS (
                SELECT FROM recipient AS r WHERE r.message = s.id AND r.state = 'waiting'
            ) THEN 'held'
            ELSE 'waiting' END AS state,
        s.due, s.on_hold <> 0 AS on_hold, s.attempts, m.size, m.local_part, m.domain, s.reason,
        coalesce(o.node, '') AS node, m.origin
    FROM schedule AS s JOIN message AS m ON m.id = s.id
    LEFT JOIN owner AS o ON o.id = s.owner AND o.alive_until > clock_timestamp()
) AS found
WHERE id > %(after)s AND {{}} ORDER BY id LIMIT %(limit)s
"""  # noqa: S608 (our own words)
_RECIPIENTS = """
SELECT message, local_part, domain, state, peer, (history::json -> -1)::text
FROM recipient WHERE message = ANY(%s) ORDER BY message, number
"""


@implementer(IListing)
class PostgresListing:
    """The queue in a database.  Everything blocks, and raises OSError where it fails.

    `now`: seconds since the epoch, instead of the database's.
    """

    def __init__(self, session: Session, now: Callable[[], float] | None = None) -> None:
        self._session = session
        self._now = now

    def now(self) -> float:
        """See `ISpoolTime.now`."""
        self._now = self._now or clock_of(self._session)
        return self._now()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def find(self, wanted: Filter) -> Iterator[Listed]:
        """The messages that fit, oldest first, in portions."""
        query = _query(wanted)
        parameters = {**_parameters(wanted, self.now()), "limit": _FIRST_BATCH_SIZE}
        while portion := self._session.call(_portion, query, parameters):
            yield from portion
            after = queue_id.decode(portion[-1].id)
            parameters |= {"after": after, "limit": _BATCH_SIZE}

    def count(self, wanted: Filter) -> int:
        """Count the messages that fit."""
        parameters = {**_parameters(wanted, self.now()), "limit": None}
        query = f"SELECT count(*) FROM ({_query(wanted)}) AS found"  # noqa: S608 (our own words)

        def count(connection: Connection) -> int:
            row = connection.execute(query.encode(), parameters).fetchone()
            return int(row[0]) if row else 0

        return self._session.call(count)


def _portion(connection: Connection, query: str, parameters: Mapping[str, Any]) -> list[Listed]:
    messages = connection.execute(query.encode(), parameters).fetchall()
    recipients: dict[int, list[ListedRecipient]] = {}
    for number, *row in connection.execute(_RECIPIENTS, ([row[0] for row in messages],)):
        recipients.setdefault(number, []).append(_recipient(*row))
    return [_listed(row, recipients.get(row[0], ())) for row in messages]


def _listed(row: tuple[Any, ...], recipients: Sequence[ListedRecipient]) -> Listed:
    number, state, due, on_hold, attempts, size, local_part, domain, reason, node, _ = row
    return Listed(
        id=queue_id.encode(number),
        state=state,
        due=due if abs(due) <= queue_id.MAX_MOMENT else math.inf,
        on_hold=on_hold,
        attempts=attempts,
        size=size,
        reverse_path=Mailbox(local_part, domain),
        recipients=recipients,
        damage=reason if state == DAMAGED else "",
        reason=reason,
        node=node,
    )


def _recipient(
    local_part: str, domain: str, state: str, peer: str, last: str | None
) -> ListedRecipient:
    attempt = None if last is None else HistoryEntry(*json.loads(last))
    return ListedRecipient(Mailbox(local_part, domain), state, peer, attempt)


def _query(wanted: Filter) -> str:
    return _FIND.format(" AND ".join(["true", *_conditions(wanted)]))


def _conditions(wanted: Filter) -> Iterator[str]:
    recipient = "EXISTS (SELECT FROM recipient AS r WHERE r.message = found.id AND {})"
    if wanted.ids:
        yield "id = ANY(%(ids)s)"
    if wanted.reverse_path:
        yield "lower(local_part || '@' || domain) = %(reverse_path)s"
    if wanted.forward_path:
        is_it = "lower(r.local_part || '@' || r.domain) = %(forward_path)s"
        yield recipient.format(f"r.state <> 'done' AND {is_it}")
    if wanted.domain:
        yield recipient.format("r.state <> 'done' AND r.domain = %(domain)s")
    if wanted.peer:
        yield recipient.format("r.state = 'held' AND r.peer = %(peer)s")
    if wanted.user:
        yield "lower(origin::json ->> 'user') = %(user)s"
    if wanted.older:
        yield "id < %(before)s"
    if wanted.state:
        yield "on_hold" if wanted.state == ON_HOLD else "state = %(state)s"


def _parameters(wanted: Filter, now: float) -> dict[str, Any]:
    return {**filter_values(wanted, now), "ids": numbers(wanted.ids), "after": -1}
