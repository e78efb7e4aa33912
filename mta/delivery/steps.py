"""Work in small steps between the other work of the reactor."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.interfaces import IReactorTime

from mta.interfaces import IRoundRobin

TIME_SLICE = 0.001  # seconds of steps, before other work goes on


class Steps:
    """Does long work on queued mail, some steps at a time.

    The `order` has other work between them, and time for other hosts, where there are any.  A
    thread would be no better: whatever holds the interpreter keeps the reactor waiting.
    """

    def __init__(self, clock: IReactorTime, order: IRoundRobin) -> None:
        self._clock = clock
        self._order = order

    async def __call__(self, steps: Iterator[None]) -> None:
        """Do all steps."""
        is_over = False
        while not is_over:
            await self._order.next_portion()
            is_over = self._do_some(steps)

    def _do_some(self, steps: Iterator[None]) -> bool:
        """Do steps for a while; returns whether that were all."""
        end = self._clock.seconds() + TIME_SLICE
        return all(self._clock.seconds() < end for _ in steps)
