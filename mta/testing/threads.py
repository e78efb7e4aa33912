"""Reactors and threads for code that blocks: deterministic, or with real threads."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure

T = TypeVar("T")

NEAR = 0.01  # seconds: such waits are skipped, for code waits so before it asks a thread
DEADLINE = 30.0  # seconds that a loaded machine may take for one step in a thread


class ThreadClock(Clock):
    """A clock that takes calls from real threads.  `wait` makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[IReadDescriptor] = []
        self._calls: queue.Queue[tuple[Callable[..., Any], Any, Any]] = queue.Queue()

    def callFromThread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Queue a call, from any thread."""
        self._calls.put((function, args, kwargs))

    def addReader(self, reader: IReadDescriptor) -> None:
        """Remember a descriptor that wants to read."""
        self.readers.append(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        """Forget it."""
        self.readers.remove(reader)

    def wait(self, work: Deferred[T] | Coroutine[Deferred[Any], Any, T]) -> T:
        """Return the result of `work`, or raise its failure."""
        deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
        results: list[Any] = []
        deferred.addBoth(results.append)
        while not results:
            self.make_call()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        result: T = results[0]
        return result

    def make_call(self) -> None:
        """Make one call that a thread asked for.

        A delayed call that is due within `NEAR` seconds is made before.  Raises AssertionError
        where no thread asks within `DEADLINE`.
        """
        times = [call.getTime() for call in self.getDelayedCalls()]
        first = min(times, default=math.inf)
        self.advance(max(0.0, first - self.seconds()) if first <= self.seconds() + NEAR else 0.0)
        try:
            function, args, kwargs = self._calls.get(timeout=DEADLINE)
        except queue.Empty:
            raise AssertionError("no thread reported anything") from None
        function(*args, **kwargs)


class ImmediateThreads:
    """A reactor and a thread pool that do everything at once.

    `calls`: the names of the functions that were to run in a thread.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        """Make the call."""
        function(*args)

    def callInThreadWithCallback(
        self,
        report: Callable[[bool, Any], None],
        function: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Make the call and report its result, as `deferToThreadPool` expects."""
        self.calls.append(function.__name__)
        try:
            result = function(*args, **kwargs)
        except Exception:  # noqa: BLE001
            report(False, Failure())
        else:
            report(True, result)
