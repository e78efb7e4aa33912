"""Work in small steps between the other work of the reactor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator

from mta.interfaces import IRoundRobin


class Steps:
    """Does the steps of all pending work, some per reactor iteration.

    Together they take about 10 ms of each iteration.  A thread would be no better: whatever holds
    the interpreter keeps the reactor waiting.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._cooperator = Cooperator(scheduler=lambda work: clock.callLater(0, work))

    def __call__(self, steps: Iterator[None]) -> Deferred[Any]:
        """Do all steps; the Deferred fires behind the last one."""
        return self._cooperator.coiterate(steps)


class StepsInTurn:
    """Does long work on queued mail, one step at a time.

    The `order` has other work between the steps, and time for other hosts, where there are any.
    """

    def __init__(self, order: IRoundRobin) -> None:
        self._order = order

    async def __call__(self, steps: Iterator[None]) -> None:
        """Do all steps."""
        await self._order.next_portion()
        for _ in steps:
            await self._order.next_portion()
