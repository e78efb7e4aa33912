"""Plans of messages for many addresses, made one after the other.

An alias may stand for thousands.  So a message that leads to many is planned in steps, and not
before most of those before it are delivered: until then all of them are little more than their
envelopes, and other mail goes on.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mta.mail import Hop
from mta.queue.fair_queue import FairQueue
from mta.queue.grouping import is_for_many
from mta.queue.interfaces import IPlannedAttempts
from mta.queue.planning import Planning
from mta.queue.tasks import Tasks
from mta.queued import Delivery, Message, State, Target
from mta.smtp.steps import InSteps

MAX_FOR_MANY = 64  # deliveries for many Maildirs in memory, before one more message is planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplanned(Delivery):
    """All that is open of a message, in place of its deliveries.

    The hop of its targets is the first one that `planning` has found.
    """

    planning: Planning


def unplanned(message: Message, planning: Planning, hop: Hop) -> Unplanned:
    """Stand in for the deliveries that `planning` will find."""
    targets = tuple(
        Target(number, progress.recipient.forward_path, hop)
        for number, progress in enumerate(message.progress)
        if progress.state is not State.DONE
    )
    return Unplanned(message, targets, planning=planning)


class LongPlans:
    """Makes long plans, of one message of each sender after the other.

    `attempts` hears of each that is made.  `in_steps` does long work step by step.
    """

    def __init__(self, attempts: IPlannedAttempts, tasks: Tasks, in_steps: InSteps) -> None:
        self._attempts = attempts
        self._tasks = tasks
        self._in_steps = in_steps
        self._waiting: FairQueue[Unplanned] = FairQueue()
        self._current: Unplanned | None = None
        self._is_planning = False
        self._for_many = 0

    def add(self, delivery: Unplanned) -> None:
        """Let a message wait for its plan."""
        self._waiting.put(delivery.message.envelope.reverse_path, delivery)
        self._go_on()

    def begin(self, delivery: Delivery) -> None:
        """Count a delivery that waits in memory for its hop."""
        self._for_many += is_for_many(delivery)

    def end(self, delivery: Delivery) -> None:
        """Count a delivery no more."""
        if is_for_many(delivery):
            self._for_many -= 1
            self._go_on()

    def withdraw(self, ids: Collection[str]) -> None:
        """Give back these messages."""
        taken = self._waiting.take_out(lambda each: each.message.id in ids)
        if self._current is not None and self._current.message.id in ids:
            taken.append(self._take_current(self._current))
        self._give_back(taken)

    def stop(self) -> None:
        """Give back all messages."""
        taken = self._waiting.take_all()
        if self._current is not None:
            taken.append(self._take_current(self._current))
        self._give_back(taken)

    def _take_current(self, delivery: Unplanned) -> Unplanned:
        """Take back the one whose plan is being made."""
        self._current = None
        delivery.planning.steps.close()
        return delivery

    def _give_back(self, deliveries: Collection[Unplanned]) -> None:
        for delivery in deliveries:
            self._attempts.not_attempted(delivery)

    def _go_on(self) -> None:
        if self._waiting and not self._is_planning and self._for_many < MAX_FOR_MANY:
            self._is_planning = True
            self._tasks.start(self._plan())

    async def _plan(self) -> None:
        """Make plans, until those that wait have to wait on."""
        try:
            while self._waiting and self._for_many < MAX_FOR_MANY:
                self._current = delivery = self._waiting.take()
                await self._in_steps(delivery.planning.steps)
                if self._current is delivery:  # else it was given back meanwhile
                    self._current = None
                    self._attempts.planned(delivery)
        finally:
            self._is_planning = False
