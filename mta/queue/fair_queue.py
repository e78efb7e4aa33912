"""A queue in which one sender does not keep the others waiting."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items: first in, first out for each key; round robin between keys."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def has_only(self, key: Hashable) -> bool:
        """Tell whether all items have this key."""
        return len(self._lines) == 1 and key in self._lines

    def put(self, key: Hashable, item: T) -> None:
        """Add an item behind those of its key."""
        self._count += 1
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = deque((item,))
        else:
            line.append(item)

    def put_back(self, key: Hashable, items: Iterable[T]) -> None:
        """Add items, in that order, before all others."""
        returned = list(items)
        if returned:
            self._count += len(returned)
            self._lines.setdefault(key, deque()).extendleft(reversed(returned))
            self._lines.move_to_end(key, last=False)

    def take(self) -> T:
        """Remove the next item.  Raises IndexError where there is none."""
        if not self._count:
            raise IndexError("nothing waits")
        key, line = next(iter(self._lines.items()))
        self._count -= 1
        item = line.popleft()
        if line:
            self._lines.move_to_end(key)
        else:
            del self._lines[key]
        return item

    def take_out(self, wanted: Callable[[T], bool]) -> list[T]:
        """Remove the items that are wanted."""
        taken: list[T] = []
        for key, line in list(self._lines.items()):
            found = [item for item in line if wanted(item)]
            if not found:
                continue
            taken += found
            rest = deque(item for item in line if not wanted(item))
            if rest:
                self._lines[key] = rest
            else:
                del self._lines[key]
        self._count -= len(taken)
        return taken

    def take_all(self) -> list[T]:
        """Remove all items, in the order of `take`."""
        return [self.take() for _ in range(self._count)]
