"""The active queue: the messages under way, each in one attempt.

An attempt routes what is open, groups it by hop, hands the deliveries to the destinations or to
turned connections, and is over when the last one is back.  What a crowded hop can't take yet is
not attempted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import IAttempts, IHeldLeases, IRouter
from mta.mail import Mailbox, Outcome
from mta.queue.active_limits import ActiveLimits
from mta.queue.attempt import Attempt
from mta.queue.backlog import Backlog
from mta.queue.borrowed import BorrowedMail, QueueWithBorrowed
from mta.queue.config import RunnerConfig
from mta.queue.destinations import Destinations
from mta.queue.grouping import grouped
from mta.queue.held_source import HeldSource
from mta.queue.held_sources import HeldSources
from mta.queue.interfaces import (
    IActiveQueue,
    IAttemptWatch,
    IHeldOutlet,
    IPlannedAttempts,
    IRoomWatch,
)
from mta.queue.long_plans import LongPlans, Unplanned, unplanned
from mta.queue.noted import noted
from mta.queue.outcomes import CROWDED, FAULT, FORWARD_LOOP
from mta.queue.planning import Planning
from mta.queue.tasks import Tasks
from mta.queued import Delivery, Message, Pressure
from mta.settings import HOUR
from mta.smtp.forwarding import forwarded, has_forwarded
from mta.smtp.steps import InSteps, at_once

CLOCK_TOLERANCE = 60.0  # seconds: smaller steps set a clock right


@implementer(IActiveQueue, IPlannedAttempts)
class ActiveQueue:
    """The attempts that are under way.

    Their deliveries go to the destinations, or to the sources of turned connections.  `watch`
    hears of each attempt that is over.
    """

    log = Logger()
    _router: IRouter

    def __init__(
        self,
        queue: IHeldLeases,
        limits: ActiveLimits,
        backlog: Backlog,
        watch: IRoomWatch,
        pressure: Pressure,
        attempts: IAttempts,
        tasks: Tasks,
        clock: IReactorTime,
        now: Callable[[], float],
        in_steps: InSteps = at_once,
    ) -> None:
        self.destinations = Destinations(clock, self, pressure, attempts)
        active = QueueWithBorrowed(self, limits)
        self.held_sources = HeldSources(queue, active, attempts, tasks, clock, now)
        self.borrowed = BorrowedMail(self.held_sources, limits)
        self._plans = LongPlans(self, tasks, in_steps)
        self._limits = limits
        self._backlog = backlog
        self._watch = watch
        self._noted = attempts
        self._tasks = tasks
        self._clock = clock
        self._now = now
        self._wall_offset = now() - clock.seconds()
        self._attempts: dict[str, Attempt] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(self._attempts.values())

    # --- attempts

    def use(self, config: RunnerConfig) -> None:
        """Go by this configuration, from the next attempt on."""
        self._router = config.router
        self.destinations.use(config.agents, config.settings)
        # A peer that turned a connection may have other rights now, and calls again.
        self.held_sources.retire()

    def attempt(
        self,
        message: Message,
        source: IHeldOutlet | None = None,
        watch: IAttemptWatch | None = None,
    ) -> Attempt:
        """Attempt a message: route it, and hand each hop its delivery.

        `source` leased it for its peer, or is to have it while its sender waits: then there is a
        `watch` of its own.  The watch hears when the last delivery is back: a coroutine that waits
        for that costs 3 % of all that is done for a message.
        """
        known = self._attempts.get(message.id)
        if known is not None and known.outstanding and known.watch is None:
            known.message = message  # others had it while we stood still, and recorded some of it
            return known  # what is out is of this lease, too
        attempt = self._attempts[message.id] = Attempt(message, source, watch, outstanding=1)
        self._limits.enter(message)
        planning = Planning(message, self._router)
        first_hop = planning.begin() if source is None else None
        if first_hop is None:
            planning.finish()
            self._hand_over(attempt, planning)
        else:
            self._enqueue_plan(unplanned(message, planning, first_hop))
        return attempt

    def is_full_for(self, message: Message) -> bool:
        """Tell whether a message has to wait until others have left."""
        return self._limits.is_full_for(message)

    async def attempt_held(self, message: Message, source: HeldSource) -> None:
        """See `IActiveQueue.attempt_held`."""
        attempt = self.attempt(message, source)
        self.destinations.dispatch()
        for looking in attempt.looking:
            await looking

    def drop(self, attempt: Attempt) -> bool:
        """Forget an attempt: its message is out of our hands.

        It may be in them again already, in a newer attempt.  Returns whether it pays now to look
        for more mail, and did not before.
        """
        had_room = self._limits.has_ample_room
        if self._attempts.get(attempt.message.id) is attempt:
            del self._attempts[attempt.message.id]
        self._limits.leave(attempt.message)
        return not had_room and self._limits.has_ample_room

    def withdraw(self, ids: Collection[str]) -> None:
        """Give up what is not yet on its way of these messages."""
        self._plans.withdraw(ids)
        self.destinations.withdraw(ids)
        self.held_sources.withdraw(ids)

    def follow_wall_clock(self) -> None:
        """Move arrivals as the wall clock was set.

        So no message is older for that.  The spool takes care of what waits there.
        """
        offset = self._now() - self._clock.seconds()
        jumped, self._wall_offset = offset - self._wall_offset, offset
        if abs(jumped) > CLOCK_TOLERANCE:
            for attempt in self:
                attempt.move_arrival(jumped)

    async def stop(self, timeout: float) -> None:
        """End all deliveries, those under way after at most `timeout` seconds."""
        end = self._clock.seconds() + timeout
        self.held_sources.begin_stop()
        self._plans.stop()
        await self.destinations.stop(timeout)
        await self.held_sources.stop(end)

    # --- what comes back

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IDeliveryResults.report`."""
        self._leaves_memory(delivery)
        self._settle(delivery, outcomes)
        self._watch.hop_has_room(delivery.targets[0].hop)

    def not_attempted(self, delivery: Delivery) -> None:
        """See `IDeliveryResults.not_attempted`."""
        self._leaves_memory(delivery)
        self._leave_untried(delivery)

    def outcome_unknown(self, delivery: Delivery) -> None:
        """See `IDeliveryResults.outcome_unknown`."""
        self._attempts[delivery.message.id].is_doubtful = True
        self.not_attempted(delivery)

    def _leaves_memory(self, delivery: Delivery) -> None:
        self._limits.end(delivery)
        self._plans.end(delivery)

    def _settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        attempt = self._attempts[delivery.message.id]
        for target, outcome in zip(delivery.targets, outcomes, strict=True):
            attempt.report(target, outcome)
        self._came_back(attempt)

    def _leave_untried(self, delivery: Delivery) -> None:
        attempt = self._attempts[delivery.message.id]
        attempt.leave_untried(delivery.targets)
        self._came_back(attempt)

    def _came_back(self, attempt: Attempt) -> None:
        attempt.outstanding -= 1
        if not attempt.outstanding:
            (attempt.watch or self._watch).ended(attempt)

    # --- what goes out

    def planned(self, delivery: Unplanned) -> None:
        """See `IPlannedAttempts.planned`."""
        self._limits.end(delivery)
        self._hand_over(self._attempts[delivery.message.id], delivery.planning)
        self.destinations.dispatch()

    def _hand_over(self, attempt: Attempt, planning: Planning) -> None:
        """Hand each hop its deliveries."""
        if planning.error is not None:
            failure = Failure(planning.error)
            self.log.failure("{queue_id} can't be routed", failure, queue_id=attempt.message.id)
        attempt.reports = planning.settled
        groups = grouped(attempt, planning.targets, self.held_sources)
        attempt.outstanding += sum(len(group.deliveries) for group in groups)
        for group in groups:
            if group.forwarder is None:
                self._enqueue(group.deliveries, group.source)
                continue
            for delivery in group.deliveries:
                looking = self._forward(delivery, group.forwarder, group.source)
                attempt.looking.append(self._tasks.start(looking))
        self._came_back(attempt)  # the plan is made

    def _enqueue_plan(self, delivery: Unplanned) -> None:
        """Let a message wait for its plan."""
        if self._is_crowded(delivery):
            self._put_off(delivery)
            return
        self._limits.begin(delivery)
        self._plans.add(delivery)

    def _enqueue(self, deliveries: Sequence[Delivery], source: IHeldOutlet | None) -> None:
        """Let deliveries wait for their hop, or go to `source`."""
        is_crowded = source is None and self._is_crowded(deliveries[0])
        for delivery in deliveries:
            if is_crowded:
                self._put_off(delivery)
                continue
            self._limits.begin(delivery)
            self._plans.begin(delivery)
            if source is not None:
                source.give(delivery)
            else:
                self.destinations.add(delivery.targets[0].hop, delivery)

    def _is_crowded(self, delivery: Delivery) -> bool:
        hop = delivery.targets[0].hop
        return self._limits.is_crowded(hop, delivery.message) or self.destinations.is_crowded(hop)

    async def _forward(
        self, delivery: Delivery, forwarder: Mailbox, source: IHeldOutlet | None
    ) -> None:
        """Hand over forwarded mail, unless it goes in a circle."""
        message, targets = delivery.message, delivery.targets
        try:
            with noted(self._noted, [message.id]):
                is_loop = await has_forwarded(forwarder, message.content)
        except OSError as error:
            self.log.error(
                "{queue_id} can't be read: {error}", queue_id=message.id, error=str(error)
            )
            self._settle(delivery, [FAULT] * len(targets))
            return
        if is_loop:
            self._settle(delivery, [FORWARD_LOOP] * len(targets))
            return
        reverse_path = self._router.rewritten(message.envelope.reverse_path, forwarder)
        self._enqueue([Delivery(forwarded(message, forwarder, reverse_path), targets)], source)
        self.destinations.dispatch()

    def _put_off(self, delivery: Delivery) -> None:
        """Leave a delivery in the spool, as its hop is crowded."""
        message, hop = delivery.message, delivery.targets[0].hop
        attempt, now = self._attempts[message.id], self._now()
        wait = self._backlog.wait(hop)
        attempt.crowded = hop
        if now - message.arrived >= HOUR:
            # Its history says why, its sender is warned in time, and some day it is given up.
            self._settle(delivery, [replace(CROWDED, wait=wait)] * len(delivery.targets))
        else:
            attempt.later = now + wait
            self._leave_untried(delivery)
