"""The accounts of users and hosts, as this process knows them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.access.account_table import AccountTable, Kind
from mta.access.shared_count import INTERVAL, SharedCount
from mta.limited_log import LimitedLog
from mta.shared_tables.interfaces import ITableStore


class Accounts:
    """The counts and the suspensions of accounts, which all processes share.

    `in_thread` runs what blocks, `now` gives seconds since the epoch.  What can't be read or
    written is logged; no method raises.
    """

    log = Logger()

    def __init__(
        self,
        store: ITableStore,
        clock: IReactorTime,
        in_thread: Callable[..., Deferred[Any]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = AccountTable(store, now)
        self._clock = clock
        self._in_thread = in_thread
        self._limited = LimitedLog(self.log)
        self._suspended: frozenset[str] = frozenset()  # users, in lower case
        self._read_at = float("-inf")
        self.recipients = SharedCount(Kind.RECIPIENTS, self._table, clock, in_thread)
        self.failures = SharedCount(Kind.FAILURES, self._table, clock, in_thread)

    async def is_suspended(self, user: str) -> bool:
        """Return whether a user may send nothing.  What others change counts in a second."""
        if self._read_at + INTERVAL <= self._clock.seconds():
            self._read_at = self._clock.seconds()
            if self._table.exists:
                await self._read()
        return user.lower() in self._suspended

    async def suspend(self, user: str, reason: str) -> bool:
        """Suspend a user; return whether that is new."""
        try:
            is_new: bool = await self._in_thread(self._table.suspend, user, reason)
        except OSError as error:
            self._limited.warn("write", "limits do not count: {error}", error=str(error))
            return False
        self._suspended |= {user.lower()}
        return is_new

    async def is_to_be_told(self, subject: str, seconds: float) -> bool:
        """Return whether nothing was told of a subject in the `seconds` before."""
        try:
            return bool(await self._in_thread(self._table.tell, subject, seconds))
        except OSError as error:
            self._limited.warn("write", "limits do not count: {error}", error=str(error))
            return False

    async def flush(self) -> None:
        """Write what is not written yet."""
        await self.recipients.flush()
        await self.failures.flush()

    async def _read(self) -> None:
        try:
            found = await self._in_thread(self._table.suspensions)
        except OSError as error:
            self._limited.warn("read", "suspensions can't be read: {error}", error=str(error))
        else:
            self._suspended = frozenset(each.user for each in found)
