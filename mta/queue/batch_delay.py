"""A delay in which mail for Maildirs gathers, to share syncs."""

from __future__ import annotations

from collections.abc import Callable, Sized

from twisted.internet.interfaces import IDelayedCall, IReactorTime

FULL_BATCH = 128  # deliveries: so many are worth their syncs, and wait no longer
DELAY = 0.005  # seconds in which more mail must come, for a smaller batch to wait on
MAX_DELAYS = 20  # one after the other: 0.1 s, which a user does not notice


class BatchDelay:
    """Delays an action for as long as more mail keeps coming."""

    def __init__(self, clock: IReactorTime, waiting: Sized, action: Callable[[], None]) -> None:
        self._clock = clock
        self._waiting = waiting
        self._action = action
        self._timer: IDelayedCall | None = None
        self._seen = 0
        self._left = 0

    @property
    def is_full(self) -> bool:
        """Tell whether so much waits that it is worth its syncs."""
        return len(self._waiting) >= FULL_BATCH

    def start(self) -> None:
        """Begin to wait for more, unless that is under way."""
        if self._timer is None:
            self._left = MAX_DELAYS
            self._wait()

    def stop(self) -> None:
        """Wait no longer, and do nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._seen = len(self._waiting)
        self._timer = self._clock.callLater(DELAY, self._look)

    def _look(self) -> None:
        if len(self._waiting) > self._seen and self._left:
            self._left -= 1
            self._wait()
            return
        self._timer = None
        self._action()
