"""A session: one call of a delivery agent, for one hop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mta.interfaces import IMailSource
from mta.mail import Outcome
from mta.queue.destination import Destination
from mta.queue.event import Event
from mta.queued import Delivery
from mta.settings import Queue

if TYPE_CHECKING:
    from mta.queue.sessions import Sessions


@implementer(IMailSource)
class DeliverySession:
    """Hands one call of a delivery agent the mail of a destination.

    `began`: seconds of the clock.  `handed` counts the deliveries that it took, `handed_in_row`
    those since it was idle.  `has_started`: it has asked for mail, since it began or was resumed.
    `was_declined`: it got none when it asked.
    """

    def __init__(self, sessions: Sessions, destination: Destination, clock: IReactorTime) -> None:
        self.destination = destination
        self.running: Deferred[None] | None = None
        self.began = clock.seconds()
        self.handed = self.handed_in_row = 0
        self.has_started = False
        self.was_declined = False
        self._sessions = sessions
        self._clock = clock
        self._resumed = Event(clock)
        self._taken: dict[int, Delivery] = {}  # a message may have several for one hop

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`."""
        if not self.has_started:
            self.has_started = True
            self.destination.starting -= 1
        if not self._sessions.may_take(self):
            self.was_declined = True
            return None
        delivery = self.destination.waiting.take()
        if not self.handed:
            self.began = self._clock.seconds()  # hosts that said nothing don't count
        self.handed += 1
        self.handed_in_row += 1
        self._taken[id(delivery)] = delivery
        return delivery

    async def wait(self) -> bool:
        """See `IMailSource.wait`: it is idle for a moment."""
        if not self._sessions.may_take(self):
            await self._sessions.idle(self)
        return self._sessions.may_take(self)

    def return_unsent(self, delivery: Delivery) -> None:
        """See `IMailSource.return_unsent`.  Raises ValueError for a delivery that is not out."""
        self._take_back(delivery)
        self._sessions.return_unsent(self, delivery)

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.report`.  Raises ValueError for a delivery that is not out."""
        if len(outcomes) != len(delivery.targets):
            raise ValueError("one outcome for each target")
        self._take_back(delivery)
        self._sessions.report(self, delivery, outcomes)

    def is_used_up(self, settings: Queue) -> bool:
        """Tell whether its connection has carried enough, or is old."""
        is_old = self._clock.seconds() - self.began >= settings.connection_age
        return (self.handed > 0 and is_old) or self.handed >= settings.connection_messages

    async def resumed(self, timeout: float) -> None:
        """Return when it is resumed, at the latest after so many seconds."""
        await self._resumed.wait(timeout)

    def resume(self) -> None:
        """Let it look whether there is something to do."""
        self._resumed.set()

    def take_unreported(self) -> list[Delivery]:
        """Take back what was handed out and has no outcome."""
        unreported = list(self._taken.values())
        self._taken.clear()
        return unreported

    def cancel(self) -> None:
        """End the session now."""
        if self.running is not None:
            self.running.cancel()

    def _take_back(self, delivery: Delivery) -> None:
        if self._taken.pop(id(delivery), None) is None:
            raise ValueError("a delivery comes back once, from the session that took it")
