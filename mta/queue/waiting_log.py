"""The log of untried mail: one line a minute for each hop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

INTERVAL = 60.0  # seconds: more lines would tell the operator no more
MAX_HOPS = 100  # with a line of their own each minute: strangers choose the domains of mail


class WaitingLog:
    """Counts messages that go on waiting, and says so once a minute."""

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._timer: IDelayedCall | None = None

    def add(self, counts: Mapping[str, int]) -> None:
        """Count messages that go on waiting, by hop."""
        self._counts.update(counts)
        if self._counts and self._timer is None:
            self._timer = self._clock.callLater(INTERVAL, self.tell)

    def tell(self) -> None:
        """Write now what was counted."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        counts, self._counts = self._counts, Counter()
        told = counts.most_common(MAX_HOPS)
        for hop, count in told:
            self.log.info("{count} messages for {hop} go on waiting, untried", count=count, hop=hop)
        if len(counts) > len(told):
            self.log.info(
                "{count} messages for {hops} other hops go on waiting, untried",
                count=counts.total() - sum(count for _, count in told),
                hops=len(counts) - len(told),
            )
