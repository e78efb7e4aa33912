"""Counts of accounts, shared by all processes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.access.account_table import AccountTable, Kind
from mta.access.limits import MAX_KEYS
from mta.limited_log import LimitedLog

INTERVAL = 1.0  # seconds between two looks at the file for an account, and until it is written


class SharedCount:
    """The count of one kind of events.

    Events are written together, once a second; so a burst that comes through several processes at
    once may go over a limit by what comes in a second.  Where the file can't be used, nothing is
    counted.
    """

    log = Logger()

    def __init__(
        self,
        kind: Kind,
        table: AccountTable,
        clock: IReactorTime,
        in_thread: Callable[..., Deferred[Any]],
    ) -> None:
        self._kind = kind
        self._table = table
        self._clock = clock
        self._in_thread = in_thread
        self._unwritten: Counter[str] = Counter()
        self._read: OrderedDict[str, tuple[float, int]] = OrderedDict()  # when, and how many
        self._limited = LimitedLog(self.log)
        self._lock = DeferredLock()
        self._timer: Any = None
        self._waiting: list[Deferred[None]] = []

    async def take(self, account: str, limit: int) -> bool:
        """Count one event, unless there were `limit` of them; then False."""
        read_at, _ = self._read.get(account, (float("-inf"), 0))
        if read_at + INTERVAL <= self._clock.seconds():
            await self._exchange(account)
        if self._total(account) >= limit:
            return False
        self._add(account, 1)
        return True

    async def add(self, account: str, number: int) -> int:
        """Count events; return how many there are, in a second."""
        self._add(account, number)
        written: Deferred[None] = Deferred()
        self._waiting.append(written)
        await written
        return self._total(account)

    async def flush(self) -> None:
        """Write what is not written yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            await self._write()

    def _total(self, account: str) -> int:
        return self._read.get(account, (0.0, 0))[1] + self._unwritten[account]

    def _add(self, account: str, number: int) -> None:
        self._unwritten[account] += number
        if self._timer is None:
            self._timer = self._clock.callLater(INTERVAL, self._written)

    def _written(self) -> None:
        self._timer = None
        Deferred.fromCoroutine(self._write())

    async def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        await self._exchange()
        for each in waiting:
            each.callback(None)

    async def _exchange(self, *asked: str) -> None:
        """Write what we counted, and read what all have counted."""
        await self._lock.acquire()
        sent, self._unwritten = self._unwritten, Counter()
        try:
            events = {**dict.fromkeys(asked, 0), **sent}
            totals = await self._in_thread(self._table.count, self._kind, events)
        except OSError as error:
            self._limited.warn("count", "limits do not count: {error}", error=str(error))
        else:
            now = self._clock.seconds()
            for account, total in totals.items():
                self._read[account] = now, total
                self._read.move_to_end(account)
            while len(self._read) > MAX_KEYS:
                self._read.popitem(last=False)
        finally:
            self._lock.release()
