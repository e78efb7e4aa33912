"""One destination, and the visits of delivery agents there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from mta.interfaces import IMailSource
from mta.mail import Agent, Hop, Outcome
from mta.queue.bell import Bell
from mta.queue.turns import Turns
from mta.queued import Delivery

if TYPE_CHECKING:
    from mta.queue.destinations import Destinations

LOCAL = frozenset({Agent.MAILDIR, Agent.DISCARD, Agent.REJECT})
BATCH = 128  # deliveries that make a visit to Maildirs worth its syncs
MAX_RIPENINGS = 20


@dataclass(slots=True)
class Ripening:
    """Mail for Maildirs that waits for more to share its syncs with.

    `seen` is how much it was when last looked at, `left` how often it may wait once more.
    """

    timer: IDelayedCall
    seen: int
    left: int = MAX_RIPENINGS


@dataclass(slots=True, eq=False)
class Destination:
    """One hop, what waits for it, and who is at work on it.

    `limit` is how many visits it gets.  `arriving` counts the visits that have not asked for mail
    yet; `resting` are those without mail, the one that began to rest last at the end.
    """

    hop: Hop
    limit: int
    waiting: Turns[Delivery] = field(default_factory=Turns)
    visits: set[Visit] = field(default_factory=set)
    resting: list[Visit] = field(default_factory=list)
    arriving: int = 0
    in_line: bool = False
    ripening: Ripening | None = None

    @property
    def is_local(self) -> bool:
        """Whether its mail leaves no process, and waits for nobody's answer."""
        return self.hop.agent in LOCAL

    @property
    def batch(self) -> int:
        """How many deliveries make a visit worth its cost."""
        return BATCH if self.hop.agent is Agent.MAILDIR else 1

    def put(self, delivery: Delivery) -> None:
        """Let a delivery wait behind those of its sender; senders take turns."""
        self.waiting.put(delivery.message.envelope.reverse_path, delivery)

    def put_back(self, deliveries: Iterable[Delivery]) -> None:
        """Let deliveries that were taken already be the next ones."""
        self.waiting.put_back(None, deliveries)


@implementer(IMailSource)
class Visit:
    """One visit of a delivery agent to a destination; `began`: seconds of the clock.

    `handed` counts the deliveries that it took, `in_turn` those since it rested.
    """

    def __init__(
        self, destinations: Destinations, destination: Destination, clock: IReactorTime
    ) -> None:
        self.destination = destination
        self.running: Deferred[None] | None = None
        self.began = clock.seconds()
        self.handed = self.in_turn = 0
        self.has_arrived = False
        self.was_dismissed = False
        self._destinations = destinations
        self._bell = Bell(clock)
        self._taken: dict[int, Delivery] = {}  # a message may have several for one hop

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`."""
        if not self.has_arrived:
            self.has_arrived = True
            self._destinations.arrived(self)
        if not self._destinations.may_take(self):
            self.was_dismissed = True
            return None
        delivery = self.destination.waiting.take()
        if not self.handed:
            self.began = self._destinations.seconds()  # hosts that said nothing don't count
        self.handed += 1
        self.in_turn += 1
        self._taken[id(delivery)] = delivery
        return delivery

    async def wait(self) -> bool:
        """See `IMailSource.wait`: it rests for a moment."""
        if not self._destinations.may_take(self):
            await self._destinations.rest(self)
        return self._destinations.may_take(self)

    def return_unsent(self, delivery: Delivery) -> None:
        """See `IMailSource.return_unsent`.  Raises ValueError for a delivery that is not out."""
        self._take_back(delivery)
        self._destinations.return_unsent(self, delivery)

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.report`.  Raises ValueError for a delivery that is not out."""
        if len(outcomes) != len(delivery.targets):
            raise ValueError("one outcome for each target")
        self._take_back(delivery)
        self._destinations.record(self, delivery, outcomes)

    async def sleep(self, longest: float) -> None:
        """Return when somebody wakes it, at the latest after so many seconds."""
        await self._bell.wait(longest)

    def wake(self) -> None:
        """Let it look whether there is something to do."""
        self._bell.ring()

    def leave(self) -> list[Delivery]:
        """What was taken and not settled."""
        unsettled = list(self._taken.values())
        self._taken.clear()
        return unsettled

    def cancel(self) -> None:
        """End the visit now."""
        if self.running is not None:
            self.running.cancel()

    def _take_back(self, delivery: Delivery) -> None:
        if self._taken.pop(id(delivery), None) is None:
            raise ValueError("a delivery comes back once, from the visit that took it")
