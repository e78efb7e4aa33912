"""The runner: takes every message from its 250 to its last outcome.

It leases what is due, begins an attempt for each message, and, when an attempt is over, evaluates
it and has the result recorded in one commit.  Fresh messages start from memory; all others
are leased from the spool in batches, so a long queue costs disk and not memory.
"""

from __future__ import annotations

import random as chance
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IAttempts, IDeliveryMeter, IHeldSource, IQueue
from mta.mail import Hop
from mta.queue.active_limits import ActiveLimits
from mta.queue.active_queue import ActiveQueue
from mta.queue.attempt import Attempt, evaluate
from mta.queue.backlog import Backlog
from mta.queue.batch import Batch
from mta.queue.config import RunnerConfig
from mta.queue.interfaces import IRoomWatch
from mta.queue.leases import BATCH_SIZE, Leases
from mta.queue.noted import NoAttempts
from mta.queue.outcome_log import OutcomeLog, is_long
from mta.queue.pauses import Pauses
from mta.queue.recorder import Recorder
from mta.queue.schedule import Schedule
from mta.queue.tasks import Tasks
from mta.queue.uncommitted import UncommittedAttempts
from mta.queued import Message, Pressure
from mta.session import LinkKind
from mta.settings import MIB
from mta.smtp.steps import InSteps, at_once

STOP_TIMEOUT = 5.0  # seconds that `stop` gives to what is being recorded


@implementer(IRoomWatch)
class Runner:
    """Works off one process's share of the spool.

    `use` says how.  At most `max_messages` messages with `max_octets` octets of content are under
    way; what is accepted beyond that waits in the spool.  `now` gives seconds since the epoch,
    `random` numbers from 0 up to 1.  `in_steps` does long work step by step.
    """

    log = Logger()

    _config: RunnerConfig
    _schedule: Schedule

    def __init__(
        self,
        queue: IQueue,
        clock: IReactorTime,
        meter: IDeliveryMeter,
        *,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = chance.random,
        max_messages: int = 1000,
        max_octets: int = 64 * MIB,
        pressure: Pressure | None = None,
        attempts: IAttempts | None = None,
        in_steps: InSteps = at_once,
    ) -> None:
        attempts = attempts or NoAttempts()
        self._now = now
        self._random = random
        self._fresh: Batch[Message] = Batch(clock, self._begin)
        self._limits = ActiveLimits(max_messages, max_octets)
        self._backlog = Backlog(queue)
        self._tasks = Tasks(clock)
        self._pauses = Pauses(clock)
        self._outcomes = OutcomeLog(clock, meter, in_steps)
        self._recorder = Recorder(queue, attempts, self._pauses, clock)
        self._leases = Leases(queue, self._limits, self._fresh, clock, now, self._pauses)
        self._active = ActiveQueue(
            queue,
            self._limits,
            self._backlog,
            self,
            pressure or Pressure(),
            attempts,
            self._tasks,
            clock,
            now,
            in_steps,
        )
        self.uncommitted = UncommittedAttempts(self, self._active, self._outcomes, now)
        self._delivered: Batch[Attempt] = Batch(
            clock, lambda attempts: self._tasks.start(self._remove(attempts))
        )
        self._unwanted: Batch[tuple[str, float]] = Batch(
            clock, lambda dues: self._tasks.start(self._release(dict(dues)))
        )
        self._leasing: Deferred[None] | None = None

    # --- for the service

    def start(self) -> None:
        """Begin to lease what waits in the spool."""
        self._leasing = Deferred.fromCoroutine(self._lease())

    async def stop(self, timeout: float) -> None:
        """End deliveries, after at most `timeout` seconds, and all leases."""
        self._pauses.stop()
        self._leases.wake()
        self._fresh.flush()
        await self._active.stop(timeout)
        if self._leasing is not None:
            await self._leasing
        self._outcomes.waiting.tell()
        self._unwanted.flush()
        self._delivered.flush()
        await self._tasks.finish(STOP_TIMEOUT)

    def use(self, config: RunnerConfig) -> None:
        """Go by this configuration, from the next attempt of each message on."""
        self._config = config
        self._schedule = Schedule(config.settings, config.peers, self._random)
        self._active.use(config)

    def accept(self, message: Message) -> None:
        """Take a message that is leased to us, or on hold."""
        if message.on_hold:
            text = "{queue_id} is on hold: {reason}"
            self.log.info(text, queue_id=message.id, reason=message.on_hold)
        else:
            self._fresh.add(message)

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing is due, and nothing under way."""
        return self._leases.is_asleep and not (self._active or self._fresh or self._tasks)

    def wake(self) -> None:
        """Look for mail that another process made due."""
        self._leases.wake()
        self._active.held_sources.wake()

    def retry(self) -> None:
        """Leave no hop alone any longer: a user wants mail tried now."""
        self._active.destinations.probe()

    def recall(self) -> None:
        """Begin no delivery of what the operator removed or put on hold."""
        self._tasks.start(self._recall())

    async def _recall(self) -> None:
        ids = [attempt.message.id for attempt in self._active]
        self._active.withdraw(await self._recorder.recalled(ids))

    # --- for peers

    def open_held(
        self, peer: str, domains: Collection[str], linger: float, kind: LinkKind = LinkKind.MAIN
    ) -> IHeldSource:
        """See `IHeldMail.open`."""
        source: IHeldSource = self._active.held_sources.open(peer, domains, linger, kind)
        return source

    async def record_held(self, peer: str, timeout: float) -> None:
        """Wait up to `timeout` seconds until mail for a peer is recorded."""
        self._fresh.flush()
        await self._recorder.held_recorded(self._active, peer, timeout)

    # --- the way of a message

    async def _lease(self) -> None:
        """Begin what is due, for as long as we run."""
        async for batch in self._leases.batches():
            try:
                for message in batch:
                    self.accept(message)
                if self._begin(self._fresh.take()) > BATCH_SIZE // 2:
                    self._leases.slow_down()
                    await self._postpone()
            except OSError as error:
                self.log.error("the spool can't be read: {error}", error=str(error))
            except Exception:  # noqa: BLE001 - outermost, as in `Leases.batches`
                self.log.failure("what was leased can't be begun")

    async def _postpone(self) -> None:
        """Put off what is due for hops that are down."""
        destinations, settings = self._active.destinations, self._config.settings
        async for counts in self._leases.postpone(destinations, settings):
            self._outcomes.waiting.add(counts)

    def _begin(self, messages: Sequence[Message]) -> int:
        """Begin an attempt for each message for which there is room.

        Returns how many could not be tried.
        """
        self._active.follow_wall_clock()
        attempts = []
        for message in messages:
            if self._pauses.stopped or self._limits.is_full_for(message):
                self._unwanted.add((message.id, 0.0))
            else:
                attempts.append(self._active.attempt(message))
        self._active.destinations.dispatch()
        return sum(attempt.is_futile for attempt in attempts)

    def ended(self, attempt: Attempt) -> None:
        """See `IAttemptWatch.ended`."""
        if is_long(attempt.reports) and attempt.is_all_delivered:
            self._tasks.start(self._tell_and_remove(attempt))
        elif attempt.is_all_delivered:
            self._outcomes.tell(attempt.message, attempt.reports, self._now())
            self._delivered.add(attempt)
        elif attempt.is_all_untried:
            self._put_back(attempt)
        else:
            attempt.recording = self._tasks.start(self._record(attempt))

    async def _tell_and_remove(self, attempt: Attempt) -> None:
        await self._outcomes.tell_beside(attempt.message, attempt.reports, self._now())
        await self._remove([attempt])

    async def _remove(self, attempts: Sequence[Attempt]) -> None:
        """Have messages removed that all recipients have."""
        try:
            await self._recorder.remove(attempts)
        finally:
            for attempt in attempts:
                self.drop(attempt)

    async def _record(self, attempt: Attempt) -> None:
        """Evaluate an attempt, have the result recorded, and go on from there."""
        self._active.follow_wall_clock()
        try:
            result = evaluate(attempt, self._schedule, self._now())
            await self._outcomes.tell_beside(result.message, result.changes, self._now())
            if result.refused and self._config.failure_watch is not None:
                self._config.failure_watch.failed(attempt.message.origin, result.refused)
            recorded = await self._recorder.record(result, self._config.notices)
        finally:
            self.drop(attempt)
        if recorded is None:
            return
        for notice in recorded.notices:
            self.accept(notice)
        for peer in recorded.held_for:
            self._active.held_sources.mail_came(peer, attempt.leased_by)
            if attempt.leased_by is None:
                self._config.held_mail_watch.mail_came(peer)
        if not recorded.removed:
            self._backlog.remember(attempt)
            self._leases.wake_for(result.settlement.due)

    def drop(self, attempt: Attempt) -> None:
        """Forget an attempt, which is recorded or need not be."""
        if self._active.drop(attempt):
            self._leases.wake()

    def _put_back(self, attempt: Attempt) -> None:
        """Put back a message that was not tried at all."""
        self._active.drop(attempt)
        if not attempt.is_doubtful:
            self._unwanted.add((attempt.message.id, attempt.later))
            self._backlog.remember(attempt)
        # Else the spool's end frees it, as one whose owner may have delivered it.

    async def _release(self, dues: Mapping[str, float]) -> None:
        """Give up leases; each message is due at its time."""
        await self._recorder.release(dues)
        if not self._pauses.stopped and min(dues.values()) <= self._now():
            self._leases.wake()

    def hop_has_room(self, hop: Hop) -> None:
        """See `IRoomWatch.hop_has_room`."""
        if hop not in self._backlog or self._pauses.stopped:
            return
        if self._active.destinations.is_down(hop):
            self._backlog.forget(hop)
        elif (space := self._limits.space(hop)) and self._backlog.begin_fetch(hop):
            self._tasks.start(self._fetch(hop, min(space, BATCH_SIZE)))

    async def _fetch(self, hop: Hop, limit: int) -> None:
        """Take back some of what was put off for a hop."""
        self._unwanted.flush()  # which may be the same
        messages = await self._backlog.fetch(hop, limit)
        for message in messages:
            self.accept(message)
        if hop not in self._backlog:
            self._leases.wake()  # more may be due
        elif not messages:
            self.hop_has_room(hop)
