"""The timer of a connection."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Deadline:
    """The time at which `action` is called; each wait moves it.

    The timer below is moved only where it would fire too late: most waits end long before.
    """

    __slots__ = ("_action", "_clock", "_end", "_timer")

    def __init__(self, clock: IReactorTime, action: Callable[[], None]) -> None:
        self._clock = clock
        self._action = action
        self._end: float | None = None
        self._timer: IDelayedCall | None = None

    def set(self, end: float) -> None:
        """Expect the end when the clock shows `end`."""
        self._end = end
        if self._timer is not None and self._timer.getTime() > end:
            self.stop()  # to move it, Twisted would look for it among all timers
        if self._timer is None:
            self._timer = self._clock.callLater(self._left(end), self._time_passed)

    def clear(self) -> None:
        """Expect no end; the timer stays for the next one."""
        self._end = None

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _left(self, end: float) -> float:
        return max(0.0, end - self._clock.seconds())

    def _time_passed(self) -> None:
        self._timer = None
        if self._end is None:
            return
        if self._left(self._end) > 0:
            self.set(self._end)
        else:
            self._action()
