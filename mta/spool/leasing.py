"""The leases of one owner: how they are taken and given up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from sqlite3 import Connection, DatabaseError
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mta.interfaces import ISpoolListener
from mta.queued import Message
from mta.spool import leases, queue_id, rows
from mta.spool.content import ContentSource, FileContent
from mta.spool.database import SpoolDamaged, is_damage
from mta.spool.jobs import ICommitter, acting
from mta.spool.loading import Loaded, load, log_damaged
from mta.spool.owners import Owner
from mta.spool.sweeping import FileSweeper
from mta.spool.wakeup import wake_processes

Choose = Callable[[Connection], list[int]]


class Leasing:
    """Leases messages for one owner, and knows which it has.

    `tries_suspects`: whether this process has lived long enough for messages that others died on.
    """

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        committer: ICommitter,
        owner: Owner,
        source: ContentSource,
        listener: ISpoolListener,
        sweeper: FileSweeper,
        now: Callable[[], float],
    ) -> None:
        self.tries_suspects = False
        self._committer = committer
        self._owner = owner
        self._source = source
        self._listener = listener
        self._sweeper = sweeper
        self._now = now
        self._leased: dict[int, bool] = {}  # by number: whether its body is in a file
        self._unreleased: dict[int, float] = {}  # what could not be released yet, and when due
        self._suspects: set[int] = set()  # what is tried alone, see `leases.suspect`
        self._unreadable: set[int] = set()  # what is damaged and can't even be put on hold

    async def lease_due(self, limit: int) -> Sequence[Message]:
        """See `ILeases.lease_due`."""
        choose = partial(
            leases.due,
            now=self._now(),
            limit=limit,
            unreadable=self._unreadable,
            suspects=self.tries_suspects,
        )
        return await self.lease(choose)

    async def lease(self, choose: Choose) -> Sequence[Message]:
        """Lease the messages that a query chooses.  Raises OSError."""
        loaded: Loaded
        try:
            loaded = await self._committer.submit(acting(self._lease_all, choose=choose))
        except SpoolDamaged:
            loaded = await self._committer.submit(acting(self._lease_readable, choose=choose))
        for message in loaded.messages:
            self._leased[queue_id.decode(message.id)] = isinstance(message.content, FileContent)
        self._suspects |= loaded.suspects
        log_damaged(self.log, loaded.damaged)
        return loaded.messages

    def took_in(self, arrivals: Iterable[rows.Arrival]) -> None:
        """Note that new messages are leased to us."""
        for arrival in arrivals:
            self._leased[arrival.number] = arrival.data is None

    # --- their end ---------------------------------------------------------------------

    async def release(self, dues: Mapping[str, float]) -> None:
        """See `ILeases.release`.

        What can't be recorded now is recorded with the next beat.
        """
        now = self._now()
        numbered = {queue_id.decode(text): max(due, now) for text, due in dues.items()}
        job = acting(leases.release, dues=[*numbered.items()], owner=self._owner.number)
        try:
            await self._committer.submit(job)
        except OSError:  # the committer has logged it
            self._unreleased |= numbered
            return
        self.ended(numbered)
        if any(due <= now for due in numbered.values()):
            self.wake_others()

    def release_again(self) -> None:
        """Release what could not be released before the last commit."""
        unreleased, self._unreleased = self._unreleased, {}
        if unreleased:
            dues = {queue_id.encode(number): due for number, due in unreleased.items()}
            released = Deferred.fromCoroutine(self.release(dues))
            released.addBoth(lambda _: self._listener.wake())

    def ended(self, numbers: Iterable[int]) -> bool:
        """Note that leases have ended; returns whether a message had a file.

        Where a message was tried alone, another one may be now.
        """
        has_file = False
        for number in numbers:
            has_file |= self._leased.pop(number, False)
            if number in self._suspects:
                self._suspects.discard(number)
                self._listener.wake()
                self.wake_others()
        return has_file

    async def removed(self, numbers: Sequence[int]) -> None:
        """Note that messages were removed, and remove their files."""
        if self.ended(numbers):
            await self._sweeper.sweep()

    def wake_others(self) -> None:
        """Wake the other processes on the spool."""
        wake_processes(self._committer.folder, except_for=self._owner.wakeup_pipe)

    # --- in the committer's thread -------------------------------------------------------

    def _lease_all(self, connection: Connection, choose: Choose) -> Loaded:
        """Lease all together.  Raises sqlite3.Error, also where rows can't be changed."""
        return self._lease_these(connection, self._chosen(connection, choose))

    def _lease_readable(self, connection: Connection, choose: Choose) -> Loaded:
        """Lease one after the other, without those that can't be changed."""
        loaded = Loaded()
        for number in self._chosen(connection, choose):
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

    def _chosen(self, connection: Connection, choose: Choose) -> list[int]:
        return leases.without_suspects(connection, choose(connection), one=self.tries_suspects)

    def _lease_these(self, connection: Connection, chosen: Sequence[int]) -> Loaded:
        leases.lease(connection, chosen, self._owner.number)
        loaded = load(connection, chosen, self._committer.folder, self._source.content)
        if loaded.damaged:
            leases.hold_damaged(connection, loaded.damaged)
        return loaded
