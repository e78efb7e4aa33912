"""Claims messages of the SQLite database for one owner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from sqlite3 import Connection, DatabaseError

from zope.interface import implementer

from mta.spool import leases
from mta.spool.content import ContentSource
from mta.spool.database import SpoolDamaged, is_damage
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
        choose = partial(leases.offer, waiting=waiting, limit=limit, now=now)
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
        loaded: Loaded
        try:
            loaded = await self._committer.submit(
                acting(self._lease_all, choose=choose, one=suspects)
            )
        except SpoolDamaged:
            loaded = await self._committer.submit(
                acting(self._lease_readable, choose=choose, one=suspects)
            )
        return loaded

    # --- in the committer's thread -------------------------------------------------------

    def _lease_all(self, connection: Connection, choose: Choose, *, one: bool) -> Loaded:
        """Lease all together.  Raises sqlite3.Error, also where rows can't be changed."""
        chosen = leases.without_suspects(connection, choose(connection), one=one)
        return self._lease_these(connection, chosen)

    def _lease_readable(self, connection: Connection, choose: Choose, *, one: bool) -> Loaded:
        """Lease one after the other, without those that can't be changed."""
        loaded = Loaded()
        for number in leases.without_suspects(connection, choose(connection), one=one):
            connection.execute("SAVEPOINT one")
            try:
                loaded.add(self._lease_these(connection, [number]))
            except DatabaseError as error:
                connection.execute("ROLLBACK TO one")
                if not is_damage(error):
                    raise
                self._unreadable.add(number)
                loaded.damaged[number] = f"its rows can't be changed: {error}"
            connection.execute("RELEASE one")
        return loaded

    def _lease_these(self, connection: Connection, chosen: Sequence[int]) -> Loaded:
        leases.lease(connection, chosen, self._owner)
        loaded = load(connection, chosen, self._committer.folder, self._source.content)
        if loaded.damaged:
            leases.hold_damaged(connection, loaded.damaged)
        return loaded
