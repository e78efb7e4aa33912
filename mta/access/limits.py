"""Limits on numbers and rates, counted for each client in bounded memory."""

from __future__ import annotations

from collections import Counter, OrderedDict

from twisted.internet.interfaces import IReactorTime

MAX_KEYS = 10_000  # keys that a rate remembers; the one seen longest ago is forgotten
MAX_MEMBERS = 20  # names that are remembered in one group
FIRST_DELAY = 0.25  # seconds after one failed log-in, doubled for each one more
MAX_DELAY = 5.0  # seconds: clients wait longer for no reply


class ConcurrencyLimit:
    """A limit on the number that each key has at this moment."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._counts: Counter[str] = Counter()

    def acquire(self, key: str) -> bool:
        """Count one more for `key`.

        False where it has its full number; then nothing is counted.
        """
        if self.is_full(key):
            return False
        self._counts[key] += 1
        return True

    def is_full(self, key: str) -> bool:
        """Tell whether `key` has its full number."""
        return self._counts[key] >= self.limit

    def release(self, key: str) -> None:
        """Count one less for `key`."""
        self._counts[key] -= 1
        if self._counts[key] <= 0:
            del self._counts[key]


class RateLimit:
    """A limit on the events of each key in a window.

    A key's window (seconds) begins with the first event and ends as a whole.  A limit of 0 is
    none.
    """

    def __init__(
        self, limit: int, window: float, clock: IReactorTime, capacity: int = MAX_KEYS
    ) -> None:
        self.limit = limit
        self._window = window
        self._clock = clock
        self._capacity = capacity
        self._events: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def is_exhausted(self, key: str) -> bool:
        """Tell whether `key` has had its number."""
        return bool(self.limit) and self._current(key)[1] >= self.limit

    def add(self, key: str, events: int = 1) -> int:
        """Count one event, or several; returns how many the window now has."""
        began, count = self._current(key)
        self._events[key] = began, count + events
        self._events.move_to_end(key)
        if len(self._events) > self._capacity:
            self._events.popitem(last=False)
        return count + events

    def count(self, key: str) -> int:
        """The number of events in the window of `key`."""
        return self._current(key)[1]

    def forget(self, key: str) -> None:
        """Begin anew with `key`."""
        self._events.pop(key, None)

    def take(self, key: str, limit: int | None = None) -> bool:
        """Count one event, unless `key` has had its number; then False.

        `limit` is that of this key, where it has one of its own.
        """
        limit = self.limit if limit is None else limit
        if not limit:
            return True
        if self._current(key)[1] >= limit:
            return False
        self.add(key)
        return True

    def _current(self, key: str) -> tuple[float, int]:
        """The beginning of the window of `key`, and its count.

        Where the window is over, it is a new one.
        """
        now = self._clock.seconds()
        began, count = self._events.get(key, (now, 0))
        return (began, count) if now - began < self._window else (now, 0)


class RecentNames:
    """The names that came last in each group, without a time."""

    def __init__(self, groups: int = MAX_KEYS, members: int = MAX_MEMBERS) -> None:
        self._groups = groups
        self._members = members
        self._found: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    def add(self, group: str, member: str) -> None:
        """Remember one more."""
        members = self._found.setdefault(group, OrderedDict())
        self._found.move_to_end(group)
        members[member] = None
        members.move_to_end(member)
        if len(members) > self._members:
            members.popitem(last=False)
        if len(self._found) > self._groups:
            self._found.popitem(last=False)

    def of(self, group: str) -> tuple[str, ...]:
        """The members of a group, the latest last."""
        return tuple(self._found.get(group, ()))

    def forget(self, group: str) -> None:
        """Forget a group."""
        self._found.pop(group, None)


def failure_delay(failures: int) -> float:
    """The seconds before the reply to the n-th failed log-in."""
    doublings = min(failures - 1, 16)
    return float(min(FIRST_DELAY * 2**doublings, MAX_DELAY))
