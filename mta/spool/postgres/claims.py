"""Claims messages of PostgreSQL for one owner."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from zope.interface import implementer

from mta.mail import Agent
from mta.spool import queue_id
from mta.spool.content import IContentSource
from mta.spool.interfaces import IClaims
from mta.spool.jobs import ICommitter, acting
from mta.spool.leases import Waiting
from mta.spool.loading import Loaded
from mta.spool.postgres import leases
from mta.spool.postgres.cursor import Cursor, Cursors
from mta.spool.postgres.loading import load
from mta.spool.postgres.server import Connection
from mta.spool.postponing import MAX_EXAMINED, later


@implementer(IClaims)
class PostgresClaims:
    """Chooses and leases messages, in one transaction with other jobs."""

    def __init__(
        self,
        committer: ICommitter,
        owner: int,
        source: IContentSource,
        cursors: Cursors,
    ) -> None:
        self._committer = committer
        self._owner = owner
        self._source = source
        self._cursors = cursors

    async def due(self, now: float, limit: int, *, suspects: bool) -> Loaded:
        """See `IClaims.due`."""
        return await self._claim(leases.due(now), limit, self._cursors.due, suspects=suspects)

    async def free(self, numbers: Sequence[int], *, suspects: bool) -> Loaded:
        """See `IClaims.free`."""
        cursor = self._cursors.new()
        return await self._claim(leases.free(numbers), len(numbers), cursor, suspects=suspects)

    async def held(self, waiting: Waiting, limit: int, now: float, *, suspects: bool) -> Loaded:
        """See `IClaims.held`."""
        cursor = self._cursors.held(waiting.peer, waiting.domains)
        job = acting(
            self._offer, waiting=waiting, limit=limit, now=now, cursor=cursor, suspects=suspects
        )
        loaded: Loaded = await self._committer.submit(job)
        return loaded

    async def release(self, dues: Mapping[int, float]) -> None:
        """See `IClaims.release`."""
        await self._committer.submit(acting(leases.release, dues=dues, owner=self._owner))

    async def postpone(
        self, now: float, dues: Mapping[str, float], warn_after: float, give_up_after: float
    ) -> Mapping[str, int]:
        """See `IClaims.postpone`."""
        limits = {"warn_after": warn_after, "give_up_after": give_up_after}
        counts: Counter[str] = await self._committer.submit(
            acting(_postpone, now=now, dues=dues, **limits)
        )
        return counts

    async def _claim(
        self, choice: leases.Choice, limit: int, cursor: Cursor, *, suspects: bool
    ) -> Loaded:
        job = acting(self._lease, choice=choice, limit=limit, cursor=cursor, suspects=suspects)
        loaded: Loaded = await self._committer.submit(job)
        return loaded

    def _offer(
        self,
        connection: Connection,
        waiting: Waiting,
        limit: int,
        now: float,
        cursor: Cursor,
        *,
        suspects: bool,
    ) -> Loaded:
        """Lease and read mail for a peer, in the committer's thread."""
        loaded = self._lease(connection, leases.held(waiting), limit, cursor, suspects=suspects)
        numbers = [queue_id.decode(message.id) for message in loaded.messages]
        if numbers:
            leases.note_offer(connection, waiting.peer, numbers, now)
        return loaded

    def _lease(
        self,
        connection: Connection,
        choice: leases.Choice,
        limit: int,
        cursor: Cursor,
        *,
        suspects: bool,
    ) -> Loaded:
        """Lease and read, in the committer's thread."""
        start = cursor.begin()
        claimed = choice.claim(connection, self._owner, limit, start, suspects=suspects)
        cursor.end(start, claimed.place)
        loaded = load(connection, claimed.numbers, self._source.content, claimed.rows)
        if loaded.damaged:
            leases.hold_damaged(connection, loaded.damaged)
        return loaded


_DUE = f"""
SELECT s.id, s.shift, s.warned, CASE
    WHEN r.history = '[]' THEN '{Agent.MX.value}:' || r.domain
    ELSE r.history::json -> -1 ->> 1 END
FROM (
    SELECT id, shift, warned FROM schedule
    WHERE due <= %s AND owner IS NULL AND on_hold = 0 AND deaths = 0
    ORDER BY due LIMIT {MAX_EXAMINED} FOR UPDATE SKIP LOCKED
) AS s
JOIN recipient AS r ON r.message = s.id AND r.state = 'waiting'
"""  # noqa: S608 (our own words)


def _postpone(
    connection: Connection,
    now: float,
    dues: Mapping[str, float],
    warn_after: float,
    give_up_after: float,
) -> Counter[str]:
    """See `mta.spool.postponing.postpone`."""
    found = connection.execute(_DUE.encode(), (now,)).fetchall()
    put_off = later(found, now, dues, warn_after, give_up_after)
    connection.execute(
        """
        UPDATE schedule SET due = new.due
        FROM json_to_recordset(%s::json) AS new (id bigint, due double precision)
        WHERE schedule.id = new.id
        """,
        (json.dumps([{"id": number, "due": due} for number, (due, _) in put_off.items()]),),
    )
    return Counter(hop for _, hop in put_off.values())
