"""What is due in the spool, leased in portions for as long as there is room for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.interfaces import IQueue
from mta.queue.bell import Bell
from mta.queue.pauses import Pauses
from mta.queued import Message

PORTION = 100  # messages leased at once
MAX_SLEEP = 60.0  # seconds until the spool is asked again, whatever it said
MIN_SLEEP = 1.0  # seconds, where mail is said to be due and can't be leased
SPOOL_PAUSE = 5.0  # seconds after a failure to read
CROWDED_PAUSE = 0.1  # seconds between portions while most of what is leased can't go


class Leases:
    """The leasing half of one runner.

    `room` says how many messages there is room for; `now` gives seconds since the epoch.
    `is_futile` is set by who takes the portions, where most of one could not be tried.
    """

    log = Logger()

    def __init__(
        self,
        queue: IQueue,
        clock: IReactorTime,
        now: Callable[[], float],
        pauses: Pauses,
        room: Callable[[], int],
    ) -> None:
        self.is_futile = False
        self._queue = queue
        self._clock = clock
        self._now = now
        self._pauses = pauses
        self._all_room = room
        self._bell = Bell(clock)
        self._asleep_until = 0.0  # of the clock; 0: awake

    def wake(self) -> None:
        """There may be more that is due, or more room for it."""
        self._bell.ring()

    def wake_for(self, due: float) -> None:
        """Something is due at that time, in seconds since the epoch."""
        if due - self._now() < self._asleep_until - self._clock.seconds():
            self._bell.ring()

    @property
    def is_asleep(self) -> bool:
        """Whether all that was due has been leased, or there is no room."""
        return bool(self._asleep_until)

    async def portions(self) -> AsyncIterator[Sequence[Message]]:
        """Lease what is due, until the runner stops."""
        while not self._pauses.stopped:
            try:
                room = self._room
                leased = await self._queue.lease_due(room) if room else ()
                yield leased
                if len(leased) < PORTION or not self._room:
                    await self._sleep(MIN_SLEEP if room and not leased else 0.0)
                elif self.is_futile:
                    await self._bell.wait(CROWDED_PAUSE)
            except OSError as error:
                self.log.error("the spool can't be read: {error}", error=str(error))
                await self._pauses.wait(SPOOL_PAUSE)
            except Exception:  # noqa: BLE001 - outermost for the lease loop, which must not end
                self.log.failure("leasing failed")
                await self._pauses.wait(MAX_SLEEP)

    async def _sleep(self, least: float) -> None:
        """Wait until mail is due or somebody rings; `least`: seconds."""
        seconds = MAX_SLEEP
        self._asleep_until = self._clock.seconds() + seconds
        if self._room and not self._pauses.stopped:
            due = await self._queue.next_due()
            if due is not None:
                seconds = min(max(due - self._now(), least), MAX_SLEEP)
                self._asleep_until = self._clock.seconds() + seconds
        await self._bell.wait(seconds)
        self._asleep_until = 0.0

    @property
    def _room(self) -> int:
        return max(0, min(PORTION, self._all_room()))
