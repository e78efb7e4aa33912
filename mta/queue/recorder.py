"""Records in the spool what became of messages, however long that takes.

What was delivered is known to the runner alone, so what can't be recorded now is tried again
until it is, or we stop: the leases then end with the process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mta.interfaces import IAttempts, INotices, IQueue
from mta.limited_log import LimitedLog
from mta.queue.attempt import Attempt, AttemptResult
from mta.queue.destination import LOCAL
from mta.queue.noted import noted
from mta.queue.pauses import Pauses
from mta.queued import Message, Notice, State

T = TypeVar("T")

FAILURE_PAUSES = (1.0, 5.0)  # seconds after failures to record; the last repeats
REMOVAL_DELAY = 0.1  # seconds until it is recorded that mail lies in a Maildir


@dataclass(frozen=True, slots=True)
class Recorded:
    """The state of a message once an attempt is recorded.

    `notices` are leased to us.  `held_for` are the peers that it waits for.
    """

    notices: Sequence[Message]
    held_for: Collection[str]
    removed: bool


class Recorder:
    """The writing half of one runner."""

    log = Logger()

    def __init__(
        self, queue: IQueue, attempts: IAttempts, pauses: Pauses, clock: IReactorTime
    ) -> None:
        self._limited = LimitedLog(self.log, clock.seconds)
        self._clock = clock
        self._queue = queue
        self._attempts = attempts
        self._pauses = pauses

    async def record(self, result: AttemptResult, notices: INotices) -> Recorded | None:
        """Record the result of an attempt, with its notices.

        Returns None where we stopped before it was recorded.
        """
        with noted(self._attempts, [result.message.id]):
            written = await _write_notices(result, notices)
        settlement = replace(result.settlement, notices=written)
        recorded: list[Message] = []

        async def settle() -> None:
            recorded.extend(await self._queue.settle(settlement))

        if not await self._persist(settlement.id, settle):
            return None
        held_for = [each.peer for each in settlement.progress if each.state is State.HELD]
        for notice in recorded:
            self.log.info(
                "{queue_id} is a notice about {about}, for <{forward_path}>",
                queue_id=notice.id,
                about=settlement.id,
                forward_path=str(notice.envelope.recipients[0].forward_path),
            )
        if result.is_done:
            self.log.info("{queue_id} removed", queue_id=settlement.id)
        return Recorded(recorded, held_for, result.is_done)

    async def remove(self, attempts: Sequence[Attempt]) -> None:
        """Remove messages that all recipients have.

        Where a repeated delivery would find the first one, there is no hurry.
        """
        ids = [attempt.message.id for attempt in attempts]
        can_wait = not self._pauses.stopped and all(
            target.hop.agent in LOCAL for attempt in attempts for target, _ in attempt.reports
        )
        delay = REMOVAL_DELAY if can_wait else 0.0
        if await self._persist(ids[0], lambda: self._queue.remove(ids, delay)):
            for id in ids:
                self.log.info("{queue_id} removed", queue_id=id)

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
        """The messages that the operator removed or put on hold.

        None of them where the spool can't be read.
        """
        try:
            return frozenset(await self._queue.recalled(ids))
        except OSError as error:
            self.log.error("the spool can't be read: {error}", error=str(error))
            return ()

    async def held_recorded(self, active: Iterable[Attempt], peer: str, timeout: float) -> None:
        """Return when what was found to wait for a peer is recorded.

        At the latest after `timeout` seconds.
        """
        recorded: list[Deferred[None]] = []
        for attempt in active:
            if attempt.recording is not None and attempt.holds_for(peer):
                recorded.append(Deferred())
                attempt.recording.addBoth(_passed_on, recorded[-1])
        with suppress(TimeoutError):
            await DeferredList(recorded, consumeErrors=True).addTimeout(timeout, self._clock)

    async def _persist(self, id: str, record: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Try until something is recorded; returns False where we stopped first.

        `id`: a message that it is about, perhaps of several.
        """
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


def _passed_on(result: T, to: Deferred[None]) -> T:
    """Let another Deferred fire as well."""
    to.callback(None)
    return result


async def _write_notices(result: AttemptResult, notices: INotices) -> tuple[Notice, ...]:
    """The notices to the sender about failures, delays and successes."""
    written = []
    for reports in (result.failed, result.delayed, result.succeeded):
        if reports:
            notice = await notices.notice(result.message, reports, result.expires)
            if notice is not None:
                written.append(notice)
    return tuple(written)
