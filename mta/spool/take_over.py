"""What other processes left: their leases, their files, and files that nobody knows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from sqlite3 import Connection
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mta.limited_log import LimitedLog
from mta.settings import HOUR
from mta.spool import attempts, leases, owners, queue_id, rows
from mta.spool.committer import Committer, Job
from mta.spool.content import InThread
from mta.spool.database import Reader
from mta.spool.folder import Folder

LOOKS = 60  # without a beat of an owner, after which it is believed to stand still
GRACE = HOUR  # seconds that a file stays which nobody knows
_PORTION = 1000  # files removed, or messages brought back, at once
_EVERY = 360  # looks for files that nobody knows: one in so many


class TakeOver:
    """Takes over for a running process, whose `owner` is its lock."""

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        folder: Folder,
        committer: Committer,
        reader: Reader,
        in_thread: InThread,
        now: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._committer = committer
        self._reader = reader
        self._in_thread = in_thread
        self._now = now
        self._limited = LimitedLog(self.log)
        self._seen: dict[int, tuple[int, int]] = {}  # by owner: its beat, and looks without another
        self._unremovable: set[int] = set()  # leftovers
        self._looks = 0

    async def look(self, ours: int) -> int:
        """Free what others left; returns how many messages.  Raises OSError: try again later."""
        dead = await self._in_thread(list, owners.dead(self._folder, ours))
        try:
            freed = [await self._succeed_dead(owner) for owner in dead]
        finally:
            for owner in dead:
                owner.close()
        freed += [await self._free_orphans(number) for number in await self._orphans(ours)]
        await self._put_aside_undated()
        await self.sweep()
        if self._looks % _EVERY == 0:
            await self._sweep_unknown()
            self._unremovable.clear()
        self._looks += 1
        await self._in_thread(self._folder.take_ballast)
        return sum(freed)

    async def _succeed_dead(self, owner: owners.Owner) -> int:
        """Take over from one; where that can't be done now, the others are not kept waiting."""
        try:
            return await self.succeed(owner, died=True)
        except OSError as error:
            self._limited.warn("owner", "spool: {error}", error=str(error))
            return 0

    async def succeed(self, owner: owners.Owner, *, died: bool) -> int:
        """Free what an owner had leased, and bury it; returns how many messages it was.

        Where it `died`, what it tried at that moment is to blame, perhaps.
        """
        tried = await self._in_thread(attempts.left_by, owner.attempts) if died else ()
        freed, kept = await self._act(self._free, owner=owner, tried=tried)
        portion = _PORTION
        while portion == _PORTION:
            portion = await self._act(
                leases.bring_back, owner=owner.number, now=self._now(), limit=_PORTION
            )
            freed += portion
        await self._in_thread(owner.bury)
        for number in kept:
            self.log.error(
                "{queue_id} is on hold: the program ended twice or more while it tried this"
                " message; `mta queue release` lets it be tried again",
                queue_id=queue_id.encode(number),
            )
        return int(freed)

    def _free(
        self, connection: Connection, owner: owners.Owner, tried: Collection[int]
    ) -> tuple[int, list[int]]:
        incoming = list(self._folder.incoming_of(owner.number))
        tried = set(tried).intersection(leases.leased(connection, owner.number))
        freed = leases.take_over(connection, owner.number, self._now(), incoming)
        return freed, leases.suspects(connection, tried, self._now())

    # --- owners without a lock, and those that stand still

    async def _orphans(self, ours: int) -> list[int]:
        """Owners that have leased something and work on it no more, or never were.

        One that lives shows it by its beats.  They are counted in looks, and not in seconds, so
        that no clock that jumps, and no sleep of the machine, makes anybody look dead.
        """
        having = await self._in_thread(self._reader.call, leases.owners_of_messages)
        beats = await self._in_thread(self._reader.call, leases.beats)
        locked = await self._in_thread(owners.known, self._folder)
        orphans = []
        seen: dict[int, tuple[int, int]] = {}
        for number in having:
            if number == ours:
                continue
            beat, looks = self._seen.get(number, (-1, 0))
            current = beats.get(number, -1)
            looks = looks + 1 if beat == current else 0
            seen[number] = current, looks
            is_unknown = number not in beats and number not in locked
            if (is_unknown and looks) or looks >= LOOKS:
                orphans.append(number)
        self._seen = seen
        return orphans

    async def _free_orphans(self, number: int) -> int:
        freed: int = await self._act(leases.take_over, owner=number, now=self._now(), incoming=())
        if freed:
            self.log.warn(
                "{count} messages are taken over from a process that stands still", count=freed
            )
        return freed

    async def _put_aside_undated(self) -> None:
        reasons = await self._in_thread(self._reader.call, leases.undated)
        if reasons:
            await self._act(leases.put_aside, reasons=reasons)
            self.tell_damaged(reasons)

    def tell_damaged(self, reasons: dict[int, str]) -> None:
        """Log what was put aside, a line for each message."""
        for number, reason in reasons.items():
            self.log.error(
                "{queue_id} is damaged, and put aside: {reason}; see `mta queue show`",
                queue_id=queue_id.encode(number),
                reason=reason,
            )

    # --- files

    async def sweep(self) -> None:
        """Remove content files whose messages are gone.  What can't be removed stays listed."""
        try:
            query = partial(rows.leftovers, but=self._unremovable)
            numbers = await self._in_thread(self._reader.call, query, _PORTION)
            if numbers:
                removed = await self._in_thread(self._unlink, numbers)
                await self._act(rows.forget_leftovers, numbers=removed)
        except OSError as error:
            self._limited.warn("leftovers", "spool: {error}", error=str(error))

    def _unlink(self, numbers: Sequence[int]) -> list[int]:
        removed = []
        for number in numbers:
            try:
                self._folder.content(number).unlink(missing_ok=True)
                removed.append(number)
            except OSError as error:
                self._unremovable.add(number)
                self._limited.warn("unlink", "spool: can't remove {error}", error=str(error))
        return removed

    async def _sweep_unknown(self) -> None:
        """Remove files that no message, no draft and no process knows, when they are old."""
        try:
            numbers = await self._in_thread(self._unknown)
            for number in await self._in_thread(self._unlink, numbers):
                self.log.warn(
                    "{queue_id}: its content belonged to no message, and is removed",
                    queue_id=queue_id.encode(number),
                )
            await self._in_thread(self._remove_abandoned)
        except OSError as error:
            self._limited.warn("unknown", "spool: {error}", error=str(error))

    def _unknown(self) -> list[int]:
        """The ids of such content.  In a thread."""
        # In this order: a draft keeps its name in `incoming` until its message has a row.
        complete = self._folder.complete()
        old = [number for number in complete if self._is_old(self._folder.content(number))]
        return self._reader.call(rows.unknown, old)[:_PORTION] if old else []

    def _remove_abandoned(self) -> None:
        """Remove what is still arriving, of owners that are not even dead any more."""
        arriving = list(self._folder.incoming_files())
        known = owners.known(self._folder)
        for owner, number in arriving:
            path = self._folder.incoming(owner, number)
            if owner not in known and self._is_old(path):
                path.unlink(missing_ok=True)

    def _is_old(self, path: Any) -> bool:
        try:
            return bool(self._now() - path.stat().st_mtime > GRACE)
        except FileNotFoundError:
            return False

    def _act(self, action: Callable[..., Any], **arguments: Any) -> Deferred[Any]:
        return self._committer.submit(Job(action=partial(action, **arguments)))
