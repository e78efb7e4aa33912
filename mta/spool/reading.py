"""Reads the queue of the SQLite database for one process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from zope.interface import implementer

from mta.spool import leases, rows, taken
from mta.spool.content import InThread
from mta.spool.folder import Folder
from mta.spool.interfaces import IReading
from mta.spool.read_connection import ReadConnection


@implementer(IReading)
class Reading:
    """Two connections for reading.

    One of them is never kept waiting by a count that takes long.
    """

    def __init__(self, folder: Folder, owner: int, in_thread: InThread) -> None:
        """Open the database.  Raises OSError."""
        self._owner = owner
        self._in_thread = in_thread
        self.connection = ReadConnection(folder)
        self._counting = ReadConnection(folder, waits=False)

    async def next_due(self, *, suspects: bool) -> float | None:
        """See `IReading.next_due`."""
        query = partial(leases.next_due, suspects=suspects)
        due: float | None = await self._in_thread(self.connection.call, query)
        return due

    async def count_held(self, peer: str, domains: Collection[str], limit: int) -> int:
        """See `IHeldReading.count_held`."""
        query = partial(leases.count_held, peer=peer, domains=domains, limit=limit)
        count: int = await self._in_thread(self.connection.call, query)
        return count

    async def peers_with_mail(self, peers: Collection[str]) -> Collection[str]:
        """See `IHeldReading.peers_with_mail`."""
        query = partial(leases.peers_with_mail, peers=peers)
        found: Collection[str] = await self._in_thread(self.connection.call, query)
        return found

    async def recalled(self, numbers: Collection[int]) -> Sequence[int]:
        """See `IReading.recalled`."""
        query = partial(leases.recalled, numbers=numbers, owner=self._owner)
        recalled: Sequence[int] = await self._in_thread(self.connection.call, query)
        return recalled

    async def taken(self, keys: Collection[str]) -> Collection[str]:
        """See `IReading.taken`."""
        found: Collection[str] = await self._in_thread(
            self.connection.call, partial(taken.known, keys=keys)
        )
        return found

    def counts_by_state(self) -> Mapping[str, tuple[int, float]]:
        """See `IReading.counts_by_state`."""
        return self._counting.call(rows.counts_by_state)

    def held_by_peer(self) -> Mapping[str, tuple[int, float]]:
        """See `IHeldReading.held_by_peer`."""
        return self._counting.call(rows.held_by_peer)

    def close(self) -> None:
        """See `IReading.close`."""
        self.connection.close()
        self._counting.close()
