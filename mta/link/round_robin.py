"""The order of those that have much to do on one reactor."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mta.interfaces import IRoundRobin

REST = 2  # times as long as a turn took, for others that are there: most of the time is theirs
MAX_REST = 0.005  # seconds: those that have much to do go on, whatever others do


@implementer(IRoundRobin)
class RoundRobin:
    """Lets one go on in each iteration of the reactor.

    So others, with little to do, wait for one of them, however many there are.  While others come,
    there is a rest after each.  Where one alone has much to do, it waits for nothing.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: deque[Deferred[None]] = deque()
        self._last = 0  # who went on last
        self._began = 0.0  # seconds on the clock, when it did
        self._is_taken = False  # none else goes on now
        self._others_came = False  # since the last one began

    async def next(self, who: int) -> None:
        """See `IRoundRobin.next`."""
        if who == self._last and not self._waiting:
            return
        if self._is_taken:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting
        else:
            self._begin()
        self._last = who

    def other_came(self) -> None:
        """See `IRoundRobin.other_came`."""
        self._others_came = True

    def _begin(self) -> None:
        self._is_taken, self._others_came = True, False
        self._began = self._clock.seconds()
        self._clock.callLater(0, self._rest)

    def _rest(self) -> None:
        """Leave some time to others, where there are any."""
        if not self._others_came:
            self._go_on()
            return
        took = self._clock.seconds() - self._began
        self._clock.callLater(min(REST * took, MAX_REST), self._go_on)

    def _go_on(self) -> None:
        self._is_taken = False
        if self._waiting:
            self._begin()
            self._waiting.popleft().callback(None)
