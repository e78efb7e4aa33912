"""The order of those that have much to do on one reactor."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mta.interfaces import IRoundRobin

REST = 2  # times as long as a turn took, for others that are there: most of the time is theirs
CONTENT_COST = 0.0005  # seconds that content takes beside its turn: to come, and to go into a file
MESSAGE_COST = 0.0025  # seconds that a message takes after its turn: to keep, and to deliver it
PRESENCE = 0.05  # seconds that a host which came is there: it waits for replies as well
MAX_REST = 0.005  # seconds: those that have much to do go on, whatever others do
MAX_QUEUED_REST = 0.02  # seconds: queued mail goes on, too, and no host waits for a reply
QUEUED_COST = MAX_REST / REST  # seconds at least: queued mail can wait, and hosts wait for replies


@implementer(IRoundRobin)
class RoundRobin:
    """Lets one go on in each iteration of the reactor.

    So others, with little to do, wait for one of them, however many there are.  While other hosts
    are there, there is a rest after each.  Where one alone has much to do, it waits for nothing.
    Sessions and work on mail that was taken have one turn after the other.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._sessions: deque[tuple[Deferred[None], float]] = deque()
        self._portions: deque[tuple[Deferred[None], float]] = deque()
        self._was_portion = False  # what went on last
        self._last = 0  # who went on last
        self._host = ""  # the one that last had much to do
        self._others_until = 0.0  # seconds on the clock, until which others are there
        self._cost = 0.0  # seconds that what it began will take after its turn
        self._began = 0.0  # seconds on the clock, when it did
        self._is_taken = False  # none else goes on now
        self._others_came = False  # since that was last asked

    async def next(self, who: int, host: str) -> None:
        """See `IRoundRobin.next`."""
        if who == self._last and not (self._sessions or self._portions):
            return
        self._host = host
        await self._turn(self._sessions, CONTENT_COST)
        self._last = who

    async def next_message(self, host: str) -> None:
        """See `IRoundRobin.next_message`."""
        self._host = host
        if self._others_are_there():
            await self._turn(self._sessions, MESSAGE_COST)

    async def next_portion(self, cost: float = 0.0) -> None:
        """See `IRoundRobin.next_portion`."""
        await self._turn(self._portions, max(cost, QUEUED_COST))

    def other_came(self, host: str) -> None:
        """See `IRoundRobin.other_came`."""
        if host != self._host:
            self._others_came = True

    def _others_are_there(self) -> bool:
        now = self._clock.seconds()
        if self._others_came:
            self._others_came = False
            self._others_until = now + PRESENCE
        return now < self._others_until

    async def _turn(self, line: deque[tuple[Deferred[None], float]], cost: float) -> None:
        if self._is_taken:
            waiting: Deferred[None] = Deferred()
            line.append((waiting, cost))
            await waiting
        else:
            self._was_portion = line is self._portions
            self._begin(cost)

    def _begin(self, cost: float) -> None:
        self._is_taken, self._cost = True, cost
        self._began = self._clock.seconds()
        self._clock.callLater(0, self._rest)

    def _rest(self) -> None:
        """Leave some time to others, where there are any."""
        if not self._others_are_there():
            self._go_on()
            return
        took = self._clock.seconds() - self._began + self._cost
        most = MAX_QUEUED_REST if self._was_portion else MAX_REST
        self._clock.callLater(min(REST * took, most), self._go_on)

    def _go_on(self) -> None:
        self._is_taken = False
        lines = (self._sessions, self._portions)
        line = lines[not self._was_portion] or lines[self._was_portion]
        if line:
            self._was_portion = line is self._portions
            waiting, cost = line.popleft()
            self._begin(cost)
            waiting.callback(None)
