"""Claims messages of the SQLite database for one owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from sqlite3 import Connection

from zope.interface import implementer

from mta.spool import leases
from mta.spool.content import ContentSource
from mta.spool.database import SpoolDamaged
from mta.spool.interfaces import IClaims
from mta.spool.jobs import ICommitter, acting
from mta.spool.leases import Waiting
from mta.spool.loading import Loaded, load
from mta.spool.postponing import postpone

Choose = Callable[[Connection], list[int]]


@implementer(IClaims)
class Claims:
    """Chooses messages and leases them, in one transaction with other jobs."""

    def __init__(self, committer: ICommitter, owner: int, source: ContentSource) -> None:
        self._committer = committer
        self._owner = owner
        self._source = source
        self._unreadable: set[int] = set()  # what is damaged and can't even be put on hold

    async def due(self, now: float, limit: int, *, suspects: bool) -> Loaded:
        """See `IClaims.due`."""
        choose = partial(
            leases.due, now=now, limit=limit, unreadable=self._unreadable, suspects=suspects
        )
        return await self._claim(choose, suspects=suspects)

    async def free(self, numbers: Sequence[int], *, suspects: bool) -> Loaded:
        """See `IClaims.free`."""
        return await self._claim(partial(leases.free, numbers=numbers), suspects=suspects)

    async def held(self, waiting: Waiting, limit: int, now: float, *, suspects: bool) -> Loaded:
        """See `IClaims.held`."""
        choose = partial(leases.offer, waiting=waiting, limit=limit, now=now, suspects=suspects)
        return await self._claim(choose, suspects=suspects)

    async def release(self, dues: Mapping[int, float]) -> None:
        """See `IClaims.release`."""
        await self._committer.submit(
            acting(leases.release, dues=[*dues.items()], owner=self._owner)
        )

    async def postpone(
        self, now: float, dues: Mapping[str, float], warn_after: float, give_up_after: float
    ) -> Mapping[str, int]:
        """See `IClaims.postpone`."""
        limits = {"warn_after": warn_after, "give_up_after": give_up_after}
        job = acting(postpone, now=now, dues=dues, **limits)
        counts: Counter[str] = await self._committer.submit(job)
        return counts

    async def _claim(self, choose: Choose, *, suspects: bool) -> Loaded:
        """Lease the messages that a query chooses."""
        chosen = partial(self._chosen, choose=choose, one=suspects)
        loaded: Loaded
        try:
            loaded = await self._committer.submit(acting(self._lease, choose=chosen))
        except SpoolDamaged:
            loaded = Loaded()
            for number in await self._committer.submit(acting(chosen)):
                loaded.add(await self._claim_one(number))
        return loaded

    async def _claim_one(self, number: int) -> Loaded:
        """Lease a message that may be damaged, or put it on hold.

        SQLite commits nothing in a transaction that has met damage, so each has its own, and what
        puts the message on hold reads nothing of it.
        """
        free = partial(leases.free, numbers=[number])
        try:
            loaded: Loaded = await self._committer.submit(acting(self._lease, choose=free))
        except SpoolDamaged:
            loaded = Loaded(damaged={number: "it can't be read: the database is damaged there"})
            await self._hold(loaded.damaged)
        return loaded

    async def _hold(self, damaged: Mapping[int, str]) -> None:
        try:
            await self._committer.submit(acting(leases.hold_damaged, reasons=damaged))
        except SpoolDamaged:
            self._unreadable.update(damaged)

    # --- in the committer's thread -------------------------------------------------------

    @staticmethod
    def _chosen(connection: Connection, choose: Choose, *, one: bool) -> Sequence[int]:
        return leases.without_suspects(connection, choose(connection), one=one)

    def _lease(self, connection: Connection, choose: Choose) -> Loaded:
        """Lease all together.  Raises sqlite3.Error, also where rows can't be changed."""
        chosen = choose(connection)
        leases.lease(connection, chosen, self._owner)
        loaded = load(connection, chosen, self._committer.folder, self._source.content)
        if loaded.damaged:
            leases.hold_damaged(connection, loaded.damaged)
        return loaded
