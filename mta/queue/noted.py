"""Notes which messages are tried at this moment.

So a message that ends the program is found: a process that takes over from it may ask.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from zope.interface import implementer

from mta.interfaces import IAttempts, IMailSource
from mta.mail import Outcome
from mta.queue.outcomes import STOOD_STILL
from mta.queued import Delivery


@implementer(IAttempts)
class NoAttempts:
    """Notes nothing."""

    def begin_attempt(self, id: str) -> bool:
        """See `IAttempts.begin_attempt`."""
        return True

    def end_attempt(self, id: str) -> None:
        """See `IAttempts.end_attempt`."""


@implementer(IMailSource)
class NotedSource:
    """Notes the deliveries of another source while they are out."""

    def __init__(self, source: IMailSource, attempts: IAttempts) -> None:
        self._source = source
        self._attempts = attempts
        self._out: dict[int, Delivery] = {}

    async def next(self) -> Delivery | None:
        """See `IMailSource.next`."""
        while (delivery := await self._source.next()) is not None:
            if self._attempts.begin_attempt(delivery.message.id):
                self._out[id(delivery)] = delivery
                return delivery
            self._source.report(delivery, [STOOD_STILL] * len(delivery.targets))
        return None

    async def wait(self) -> bool:
        """See `IMailSource.wait`."""
        is_more: bool = await self._source.wait()
        return is_more

    def report(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """See `IMailSource.report`."""
        self._end(delivery)
        self._source.report(delivery, outcomes)

    def return_unsent(self, delivery: Delivery) -> None:
        """See `IMailSource.return_unsent`."""
        self._end(delivery)
        self._source.return_unsent(delivery)

    def close(self) -> None:
        """Note that nothing of this source is tried any more."""
        for delivery in list(self._out.values()):
            self._end(delivery)

    def _end(self, delivery: Delivery) -> None:
        if self._out.pop(id(delivery), None) is not None:
            self._attempts.end_attempt(delivery.message.id)


@contextmanager
def noted(attempts: IAttempts, ids: Collection[str]) -> Iterator[None]:
    """Note for a while that these messages are worked on."""
    for id in ids:
        attempts.begin_attempt(id)
    try:
        yield
    finally:
        for id in ids:
            attempts.end_attempt(id)
