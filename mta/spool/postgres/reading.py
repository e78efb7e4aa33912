"""Reads the queue in PostgreSQL for one process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from zope.interface import implementer

from mta.mail import Envelope
from mta.spool.content import InThread
from mta.spool.holds import StandingHold, first_fitting
from mta.spool.interfaces import IAdmission, IReading
from mta.spool.postgres import leases, rows, taken
from mta.spool.postgres.cursor import Cursor
from mta.spool.postgres.holds import standing
from mta.spool.postgres.server import FEW_ROWS, Connection, Server, Session


@implementer(IReading, IAdmission)
class PostgresReading:
    """Two connections for reading.

    One of them is never kept waiting by a count that takes long.
    """

    def __init__(self, server: Server, owner: int, in_thread: InThread, due: Cursor) -> None:
        """`due`: where mail that is due is looked for."""
        self._owner = owner
        self._in_thread = in_thread
        self._due = due
        self.session = Session(server, setting=FEW_ROWS)
        self._counting = Session(server, waits=False)

    async def next_due(self, *, suspects: bool) -> float | None:
        """See `IReading.next_due`."""

        def query(connection: Connection) -> float | None:
            return leases.next_due(connection, self._due.start(), suspects=suspects)

        due: float | None = await self._in_thread(self.session.call, query)
        return due

    async def count_held(self, peer: str, domains: Collection[str], limit: int) -> int:
        """See `IHeldReading.count_held`."""
        count: int = await self._in_thread(
            self.session.call, leases.count_held, peer, domains, limit
        )
        return count

    async def peers_with_mail(self, peers: Collection[str]) -> Collection[str]:
        """See `IHeldReading.peers_with_mail`."""
        found: Collection[str] = await self._in_thread(
            self.session.call, leases.peers_with_mail, peers
        )
        return found

    async def recalled(self, numbers: Collection[int]) -> Sequence[int]:
        """See `IReading.recalled`."""
        recalled: Sequence[int] = await self._in_thread(
            self.session.call, leases.recalled, numbers, self._owner
        )
        return recalled

    async def taken(self, keys: Collection[str]) -> Collection[str]:
        """See `IReading.taken`."""
        found: Collection[str] = await self._in_thread(self.session.call, taken.known, keys)
        return found

    async def may_come(self, envelope: Envelope) -> bool:
        """See `IAdmission.may_come`."""
        holds: Sequence[StandingHold] = await self._in_thread(self.session.call, standing)
        return first_fitting(holds, envelope) is None

    def counts_by_state(self) -> Mapping[str, tuple[int, float]]:
        """See `IReading.counts_by_state`."""
        return self._counting.call(rows.counts_by_state)

    def held_by_peer(self) -> Mapping[str, tuple[int, float]]:
        """See `IHeldReading.held_by_peer`."""
        return self._counting.call(rows.held_by_peer)

    def close(self) -> None:
        """See `IReading.close`."""
        self.session.close()
        self._counting.close()
