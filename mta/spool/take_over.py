"""Takes over the mail of processes that died, or stand still."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from sqlite3 import Connection
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mta.limited_log import LimitedLog
from mta.spool import attempts, leases, owner_rows, owners, queue_id
from mta.spool.content import InThread
from mta.spool.database import SpoolDamaged
from mta.spool.jobs import ICommitter, acting
from mta.spool.loading import log_damaged
from mta.spool.read_connection import ReadConnection
from mta.spool.sweeping import FileSweeper

MAX_SILENT_LOOKS = 60  # looks without a new beat: ten minutes, longer than any commit takes
_BATCH_SIZE = 1000  # messages made due in one commit: others want to commit, too
_SWEEP_INTERVAL = 360  # looks between searches for unknown files: an hour


class TakeOver:
    """Looks for owners whose messages have to be freed."""

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        committer: ICommitter,
        reader: ReadConnection,
        in_thread: InThread,
        now: Callable[[], float],
        sweeper: FileSweeper,
    ) -> None:
        self._folder = committer.folder
        self._committer = committer
        self._reader = reader
        self._in_thread = in_thread
        self._now = now
        self._sweeper = sweeper
        self._limited = LimitedLog(self.log)
        self._seen: dict[int, tuple[int, int]] = {}  # by owner: its beat, and looks without another
        self._looks = 0

    async def look(self, ours: int) -> int:
        """Free what other owners left; returns how many messages.

        `ours`: the owner that this process is.  Raises OSError: try again later.
        """
        dead = await self._in_thread(list, owners.dead_owners(self._folder, ours))
        try:
            freed = [await self._take_over_from_dead(owner) for owner in dead]
        finally:
            for owner in dead:
                owner.close()
        freed += [await self._free_silent(number) for number in await self._silent(ours)]
        await self._hold_undated()
        await self._sweeper.sweep()
        if self._looks % _SWEEP_INTERVAL == 0:
            await self._sweeper.sweep_unknown()
        self._looks += 1
        await self._in_thread(self._folder.make_ballast)
        return sum(freed)

    async def _take_over_from_dead(self, owner: owners.Owner) -> int:
        """Take over from one; a failure does not keep the others waiting."""
        try:
            return await self.take_over_from(owner, died=True)
        except OSError as error:
            self._limited.warn("owner", "spool: {error}", error=str(error))
            return 0

    async def take_over_from(self, owner: owners.Owner, *, died: bool) -> int:
        """Free what an owner had leased, and remove the owner.

        Returns how many messages were freed.  Where it `died`, one of those that it tried at that
        moment may have been the cause.
        """
        tried = await self._in_thread(attempts.noted_in, owner.attempts) if died else ()
        freed, kept = await self._free_leased(owner.number, tried, has_ended=True)
        freed += await self._make_released_due(owner.number)
        await self._in_thread(owner.remove)
        for number in kept:
            self.log.error(
                "{queue_id} is on hold: the program ended twice or more while it tried this"
                " message; `mta queue release` lets it be tried again",
                queue_id=queue_id.encode(number),
            )
        return freed

    async def _free_leased(
        self, owner: int, tried: Collection[int] = (), *, has_ended: bool
    ) -> tuple[int, list[int]]:
        """Free what an owner had leased.  Where it `has_ended` its files are leftovers.

        Where pages are damaged that is done one by one, with what can be changed.  Returns how
        many messages that were, and those that are put on hold.
        """
        with suppress(SpoolDamaged):
            return await self._free(owner, tried, has_ended=has_ended)
        freed: int = 0
        kept: list[int] = []
        for number in await self._in_thread(self._reader.call, owner_rows.leased, owner):
            with suppress(SpoolDamaged):
                one, held = await self._free(owner, tried, number, has_ended=False)
                freed, kept = freed + one, kept + held
        return freed, kept

    def _free(
        self,
        owner: int,
        tried: Collection[int],
        only: int | None = None,
        *,
        has_ended: bool,
    ) -> Deferred[tuple[int, list[int]]]:
        def free(connection: Connection) -> tuple[int, list[int]]:
            incoming = list(self._folder.incoming_of(owner)) if has_ended else ()
            freed = owner_rows.free_leased(connection, owner, now, incoming, only)
            return len(freed), owner_rows.count_death(connection, freed & {*tried}, now)

        now = self._now()
        return self._committer.submit(acting(free))

    async def _make_released_due(self, owner: int) -> int:
        """Make due what an owner had released; returns how many messages.

        Where a page is damaged they stay due later.
        """
        made, portion = 0, _BATCH_SIZE
        make_due = acting(
            owner_rows.make_released_due, owner=owner, now=self._now(), limit=_BATCH_SIZE
        )
        with suppress(SpoolDamaged):
            while portion == _BATCH_SIZE:
                portion = await self._committer.submit(make_due)
                made += portion
        return made

    # --- owners without a lock, and those that stand still

    async def _silent(self, ours: int) -> list[int]:
        """Owners that have leased something and show no sign of life.

        A living one shows it by its beats.  They are counted in looks, and not in seconds, so
        that no clock that jumps, and no sleep of the machine, makes a process look dead.
        """
        having = await self._in_thread(self._reader.call, owner_rows.owners_of_messages)
        beats = await self._in_thread(self._reader.call, owner_rows.beats)
        locked = await self._in_thread(owners.known_owners, self._folder)
        silent = []
        seen: dict[int, tuple[int, int]] = {}
        for number in having:
            if number == ours:
                continue
            beat, looks = self._seen.get(number, (-1, 0))
            current = beats.get(number, -1)
            looks = looks + 1 if beat == current else 0
            seen[number] = current, looks
            is_unknown = number not in beats and number not in locked
            if (is_unknown and looks) or looks >= MAX_SILENT_LOOKS:
                silent.append(number)
        self._seen = seen
        return silent

    async def _free_silent(self, number: int) -> int:
        freed, _ = await self._free_leased(number, has_ended=False)
        if freed:
            self.log.warn(
                "{count} messages are taken over from a process that stands still", count=freed
            )
        return freed

    async def _hold_undated(self) -> None:
        """Put messages on hold that would never be tried."""
        reasons = await self._in_thread(self._reader.call, leases.undated)
        if reasons:
            await self._committer.submit(acting(leases.hold_damaged, reasons=reasons))
            log_damaged(self.log, reasons)
