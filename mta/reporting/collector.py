"""The counting of messages that were judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from mta.authentication.decision import Decision
from mta.authentication.judged import Judged
from mta.authentication.reports.document import DAY
from mta.authentication.reports.rows import Published, Row, row_of
from mta.inspectors.interfaces import IJudgedMail
from mta.limited_log import LimitedLog
from mta.reporting.store import Counted, ReportStore

MAX_PENDING = 5_000  # rows in memory, of some KiB each; beyond them messages are not counted


@implementer(IJudgedMail)
class Collector:
    """Counts messages, in memory and then in the store.

    `in_thread` calls a function that blocks; `now` gives seconds since the epoch.
    """

    log = Logger()

    def __init__(
        self,
        store: ReportStore,
        in_thread: Callable[..., Deferred[Any]],
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._in_thread = in_thread
        self._now = now
        self._pending: Counter[tuple[int, Published, Row]] = Counter()
        self._limited = LimitedLog(self.log)

    def judged(self, judged: Judged, decision: Decision) -> None:
        """See `IJudgedMail.judged`."""
        found = row_of(judged, decision)
        if found is None:
            return
        key = (int(self._now()) // DAY, *found)
        if key in self._pending or len(self._pending) < MAX_PENDING:
            self._pending[key] += 1
        else:
            self._tell_lost(1)

    async def flush(self) -> None:
        """Hand what was counted to the store.  What it can't take now stays for the next time."""
        pending, self._pending = self._pending, Counter()
        if not pending:
            return
        counted = [Counted(*key, count) for key, count in pending.items()]
        try:
            lost: int = await self._in_thread(self._store.add, counted)
        except OSError as error:
            self._limited.warn("store", "DMARC reports: {error}", error=str(error))
            self._pending.update(dict(list(pending.items())[: MAX_PENDING - len(self._pending)]))
            return
        if lost:
            self._tell_lost(lost)

    def _tell_lost(self, count: int) -> None:
        self._limited.warn(
            "lost", "DMARC reports: too many kinds of mail, {count} left out", count=count
        )
