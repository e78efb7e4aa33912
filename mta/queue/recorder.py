"""Records in the spool what became of messages, however long that takes.

What was delivered is known to the runner alone, so what can't be recorded now is tried again
until it is, or we stop: the leases then end with the process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.interfaces import IQueue
from mta.limited_log import LimitedLog
from mta.queue.pauses import Pauses
from mta.queued import Message, Settlement

FAILURE_PAUSES = (1.0, 5.0)  # seconds after failures to record; the last repeats


class Recorder:
    """The writing half of one runner."""

    log = Logger()

    def __init__(self, queue: IQueue, pauses: Pauses, clock: IReactorTime) -> None:
        self._limited = LimitedLog(self.log, clock.seconds)
        self._queue = queue
        self._pauses = pauses

    async def settle(self, settlement: Settlement) -> Sequence[Message] | None:
        """Record an attempt; returns its notices, None where we stopped first."""
        notices: list[Message] = []

        async def settle() -> None:
            notices.extend(await self._queue.settle(settlement))

        return notices if await self._persist(settlement.id, settle) else None

    async def remove(self, ids: Sequence[str], delay: float) -> bool:
        """Remove messages that are done, in `delay` seconds; False where we stopped first."""
        return await self._persist(ids[0], lambda: self._queue.remove(ids, delay))

    async def release(self, dues: Mapping[str, float]) -> None:
        """Give up leases; what can't be given up ends with the process."""
        try:
            await self._queue.release(dues)
        except OSError as error:
            self.log.error(
                "{count} messages stay leased until the next start: {error}",
                count=len(dues),
                error=str(error),
            )

    async def recalled(self, ids: Collection[str]) -> Collection[str]:
        """What a person removed or put on hold, as far as the spool can be read."""
        try:
            return frozenset(await self._queue.recalled(ids))
        except OSError as error:
            self.log.error("the spool can't be read: {error}", error=str(error))
            return ()

    async def _persist(self, id: str, record: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Record something of a message (and perhaps of others); whether it was recorded."""
        failures = 0
        while True:
            try:
                await record()
                return True
            except OSError as error:
                self._limited.error(
                    "record",
                    "{queue_id} can't be recorded, which is tried again: {error}",
                    queue_id=id,
                    error=str(error),
                )
            if self._pauses.stopped:
                return False
            await self._pauses.wait(FAILURE_PAUSES[min(failures, len(FAILURE_PAUSES) - 1)])
            failures += 1
