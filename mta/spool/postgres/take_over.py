"""Takes over the mail of processes that died, on any node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from twisted.logger import Logger

from mta.limited_log import LimitedLog
from mta.spool import attempts, owners, queue_id
from mta.spool.content import InThread
from mta.spool.jobs import ICommitter, acting
from mta.spool.postgres import owner_rows
from mta.spool.postgres.journal import NotedOutcome, outcomes_in
from mta.spool.postgres.replay import replay
from mta.spool.postgres.server import Connection

_BATCH_SIZE = 1000  # messages made due in one commit: others want to commit, too


@dataclass(slots=True)
class _Freed:
    """Messages that were freed: their owners, their number, those on hold now."""

    owners: Sequence[int]
    count: int
    kept: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Left:
    """The notes of an owner that has ended.

    They are the messages that it tried, and outcomes that it could not record.
    """

    tried: Collection[int]
    outcomes: Sequence[NotedOutcome]


class PostgresTakeOver:
    """Looks for owners whose messages have to be freed.

    Those of this node are known by their locks, at once; those of other nodes by their beats.
    """

    log: ClassVar[Logger] = Logger()

    def __init__(
        self, committer: ICommitter, in_thread: InThread, now: Callable[[], float], ours: int
    ) -> None:
        """`ours`: the owner that this process is.  `now`: seconds since the epoch."""
        self._committer = committer
        self._in_thread = in_thread
        self._now = now
        self._ours = ours
        self._limited = LimitedLog(self.log)

    async def look(self) -> int:
        """Free what other owners left; returns how many messages.

        One whose outcomes can't be read keeps its files, and is looked at again.  Raises OSError:
        try again later.
        """
        dead = await self._in_thread(list, owners.dead_owners(self._committer.folder, self._ours))
        try:
            found = [(owner, await self._in_thread(self._left_by, owner)) for owner in dead]
            read = {owner: left for owner, left in found if left is not None}
            count = await self._free({owner.number: left for owner, left in read.items()})
            for owner in read:
                await self._in_thread(owner.remove)
        finally:
            for owner in dead:
                owner.close()
        return count

    async def leave(self, owner: owners.Owner) -> None:
        """Free what is our own, at an orderly end.  Raises OSError."""
        outcomes = await self._in_thread(outcomes_in, owner.outcomes)
        await self._free({owner.number: _Left((), outcomes)})
        await self._in_thread(owner.remove)

    async def _free(self, left: Mapping[int, _Left]) -> int:
        """Free the mail of dead owners.  `left`: by owners that are known to have ended."""
        freed: _Freed = await self._committer.submit(acting(self._free_leased, left=left))
        count, portion = freed.count, _BATCH_SIZE if freed.owners else 0
        while portion == _BATCH_SIZE:
            make_due = acting(
                owner_rows.make_released_due,
                owners=freed.owners,
                now=self._now(),
                limit=_BATCH_SIZE,
            )
            portion = await self._committer.submit(make_due)
            count += portion
        for number in freed.kept:
            self.log.error(
                "{queue_id} is on hold: the program ended twice or more while it tried this"
                " message; `mta queue release` lets it be tried again",
                queue_id=queue_id.encode(number),
            )
        return count

    def _free_leased(self, connection: Connection, left: Mapping[int, _Left]) -> _Freed:
        """Free what is leased, in the committer's thread."""
        dead = {*owner_rows.bury(connection, left), *owner_rows.unknown(connection), *left}
        if self._ours not in left:
            dead.discard(self._ours)
        if not dead:
            return _Freed((), 0, ())
        for owner, each in left.items():
            replay(connection, owner, each.outcomes)
        leased = {
            owner: set(each.tried).intersection(owner_rows.leased(connection, [owner]))
            for owner, each in left.items()
            if each.tried
        }
        count = owner_rows.free_leased(connection, sorted(dead), self._now())
        kept = [
            number
            for numbers in leased.values()
            if numbers
            for number in owner_rows.count_death(connection, numbers, self._now())
        ]
        return _Freed(sorted(dead), count, kept)

    def _left_by(self, owner: owners.Owner) -> _Left | None:
        """The notes that a dead owner left here; None: unreadable now."""
        try:
            return _Left(attempts.noted_in(owner.attempts), outcomes_in(owner.outcomes))
        except OSError as error:
            self._limited.error(
                "outcomes",
                "outcomes of a process that died can't be read, and are kept: {error}; what it"
                " had delivered may be sent twice: mend the disk, or remove the file",
                error=str(error),
            )
            return None
