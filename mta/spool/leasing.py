"""The leases of one owner: how they are taken and given up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mta.interfaces import ISpoolListener
from mta.queued import Message
from mta.spool import queue_id, rows
from mta.spool.content import FileContent
from mta.spool.interfaces import IClaims, ISweeper, IWaker
from mta.spool.leases import Waiting
from mta.spool.loading import Loaded, log_damaged


class Leasing:
    """Leases messages for one owner, and knows which it has.

    `tries_suspects`: whether this process has lived long enough for messages that others died on.
    """

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        claims: IClaims,
        listener: ISpoolListener,
        waker: IWaker,
        now: Callable[[], float],
        sweeper: ISweeper | None = None,
    ) -> None:
        """`sweeper`: where content has files.  `now`: seconds since the epoch."""
        self.tries_suspects = False
        self._claims = claims
        self._listener = listener
        self._waker = waker
        self._now = now
        self._sweeper = sweeper
        self._leased: dict[int, bool] = {}  # by number: whether its body is in a file
        self._unreleased: dict[int, float] = {}  # what could not be released yet, and when due
        self._suspects: set[int] = set()  # what is tried alone, see `leases.suspect`

    async def lease_due(self, limit: int) -> Sequence[Message]:
        """See `ILeases.lease_due`."""
        now = self._now()
        return self._took(await self._claims.due(now, limit, suspects=self.tries_suspects))

    async def lease(self, numbers: Sequence[int]) -> Sequence[Message]:
        """See `ILeases.lease`."""
        return self._took(await self._claims.free(numbers, suspects=self.tries_suspects))

    async def lease_held(
        self, peer: str, domains: Collection[str], limit: int, before: float
    ) -> Sequence[Message]:
        """See `IHeldLeases.lease_held`."""
        waiting = Waiting(peer, domains, before)
        found = self._claims.held(waiting, limit, self._now(), suspects=self.tries_suspects)
        return self._took(await found)

    async def postpone(
        self, dues: Mapping[str, float], warn_after: float, give_up_after: float
    ) -> Mapping[str, int]:
        """See `IAttemptRecords.postpone`."""
        return await self._claims.postpone(self._now(), dues, warn_after, give_up_after)

    def _took(self, loaded: Loaded) -> Sequence[Message]:
        """Note what was leased, and return it."""
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
        try:
            await self._claims.release(numbered)
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
        if self.ended(numbers) and self._sweeper is not None:
            await self._sweeper.sweep()

    def wake_others(self) -> None:
        """Wake the other processes on the spool."""
        self._waker.wake_others()
