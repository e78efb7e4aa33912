"""One log line a hop and minute about mail that is not tried, as its hop is down or crowded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

INTERVAL = 60.0  # seconds
MAX_HOPS = (
    100  # that have a line of their own each minute; the domains of mail are anybody's choice
)


class WaitingLog:
    """Counts messages that go on waiting, and tells of them once a minute."""

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._timer: IDelayedCall | None = None

    def add(self, counts: Mapping[str, int]) -> None:
        """So many messages for each of these hops go on waiting."""
        self._counts.update(counts)
        if self._counts and self._timer is None:
            self._timer = self._clock.callLater(INTERVAL, self.tell)

    def tell(self) -> None:
        """Tell now of what was counted."""
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
