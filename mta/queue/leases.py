"""The mail that is due, leased from the spool in batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Sized

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.interfaces import IQueue
from mta.limited_log import LimitedLog
from mta.queue.active_limits import ActiveLimits
from mta.queue.destinations import Destinations
from mta.queue.event import Event
from mta.queue.pauses import Pauses
from mta.queued import Message
from mta.settings import Queue

BATCH_SIZE = 100  # messages leased at once: others want the database, too
MAX_SLEEP = 60.0  # seconds until the spool is asked again, whatever it said
MIN_SLEEP = 1.0  # seconds, where mail is said to be due and can't be leased
SPOOL_PAUSE = 5.0  # seconds after a failure to read
POSTPONE_PAUSE = 0.05  # seconds between batches of mail that is put off: others want to commit
FEW_POSTPONED = 100  # of one batch: the rest may as well be leased
FUTILE_PAUSE = 0.1  # seconds between batches while most of what is leased can't go


class Leases:
    """Leases what is due, for as long as the runner runs.

    `limits` say how many messages there is room for, beside those that are `fresh`; `now` gives
    seconds since the epoch.
    """

    log = Logger()

    def __init__(
        self,
        queue: IQueue,
        limits: ActiveLimits,
        fresh: Sized,
        clock: IReactorTime,
        now: Callable[[], float],
        pauses: Pauses,
    ) -> None:
        self._limited = LimitedLog(self.log, clock.seconds)
        self._queue = queue
        self._limits = limits
        self._fresh = fresh
        self._clock = clock
        self._now = now
        self._pauses = pauses
        self._wakened = Event(clock)
        self._asleep_until = 0.0  # of the clock; 0: awake
        self._is_slow = False

    def wake(self) -> None:
        """Look again: there may be more mail, or more room for it."""
        self._wakened.set()

    def wake_for(self, due: float) -> None:
        """Look again when this is due, in seconds since the epoch."""
        if due - self._now() < self._asleep_until - self._clock.seconds():
            self._wakened.set()

    async def postpone(
        self, destinations: Destinations, settings: Queue
    ) -> AsyncIterator[Mapping[str, int]]:
        """Put off what is due for hops that are down, in batches.

        No message is looked at for that.  Each batch is counted by hop.
        """
        while not self._pauses.stopped and (waits := destinations.waits()):
            now = self._now()
            counts = await self._queue.postpone(
                {hop: now + wait for hop, wait in waits.items()},
                settings.warn_after,
                settings.give_up_after,
            )
            yield counts
            if sum(counts.values()) < FEW_POSTPONED:
                return
            await self._pauses.wait(POSTPONE_PAUSE)

    def slow_down(self) -> None:
        """Pause before the next batch: most of this one can't go."""
        self._is_slow = True

    @property
    def is_asleep(self) -> bool:
        """Tell whether all that was due is leased, or no room left."""
        return bool(self._asleep_until)

    async def batches(self) -> AsyncIterator[Sequence[Message]]:
        """Lease what is due, until the runner stops."""
        while not self._pauses.stopped:
            try:
                self._is_slow = False
                room = self._room
                leased = await self._queue.lease_due(room) if room else ()
                yield leased
                if len(leased) < BATCH_SIZE or not self._room:
                    await self._sleep(MIN_SLEEP if room and not leased else 0.0)
                elif self._is_slow:
                    await self._wakened.wait(FUTILE_PAUSE)
            except OSError as error:
                self._limited.error("read", "the spool can't be read: {error}", error=str(error))
                await self._pauses.wait(SPOOL_PAUSE)
            except Exception:  # noqa: BLE001 - outermost for the lease loop, which must not end
                self.log.failure("leasing failed")
                await self._pauses.wait(MAX_SLEEP)

    async def _sleep(self, least: float) -> None:
        """Wait until mail is due, or for `wake`; at least `least` seconds."""
        seconds = MAX_SLEEP
        self._asleep_until = self._clock.seconds() + seconds
        if self._room and not self._pauses.stopped:
            due = await self._queue.next_due()
            if due is not None:
                seconds = min(max(due - self._now(), least), MAX_SLEEP)
                self._asleep_until = self._clock.seconds() + seconds
        await self._wakened.wait(seconds)
        self._asleep_until = 0.0

    @property
    def _room(self) -> int:
        return max(0, min(BATCH_SIZE, self._limits.room - len(self._fresh)))
