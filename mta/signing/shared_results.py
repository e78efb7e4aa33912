"""Results that are made once, and shared by all that want them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedResults(Generic[K, V]):
    """Results by key, of which a number is remembered for some seconds.

    What is being made is waited for.  Failures are told to all that wait, and not remembered.
    """

    def __init__(self, clock: IReactorTime, max_results: int, max_age: float) -> None:
        self._clock = clock
        self._max_results = max_results
        self._max_age = max_age
        self._known: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._waiting: dict[K, list[Deferred[V]]] = {}

    async def get(self, key: K, make: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Return the result of a key, or make it.

        `make` goes on where one that waits for it is cancelled.  Raises what `make` raises.
        """
        known = self._known.get(key)
        if known is not None and self._clock.seconds() < known[0]:
            self._known.move_to_end(key)
            return known[1]
        result: Deferred[V] = Deferred()
        if key in self._waiting:
            self._waiting[key].append(result)
        else:
            self._waiting[key] = [result]
            making = Deferred.fromCoroutine(make())
            making.addCallbacks(
                self._tell, self._tell_failure, callbackArgs=(key,), errbackArgs=(key,)
            )
        return await result

    def _tell(self, value: V, key: K) -> None:
        self._known.pop(key, None)
        self._known[key] = self._clock.seconds() + self._max_age, value
        if len(self._known) > self._max_results:
            self._known.popitem(last=False)
        for each in self._waiting.pop(key):
            each.callback(value)

    def _tell_failure(self, failure: Failure, key: K) -> None:
        for each in self._waiting.pop(key):
            each.errback(failure)
