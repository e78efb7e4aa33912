"""Work on shared tables that goes together while a thread is busy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mta.shared_tables.interfaces import ISharedTables, IStatements

T = TypeVar("T")

_Action = Callable[[IStatements], Any]


class GatheredWork:
    """The work of a process on a set of tables.

    One thread does it at a time.  What comes while it works is one transaction afterwards.
    `in_thread` runs what blocks.
    """

    def __init__(self, tables: ISharedTables, in_thread: Callable[..., Deferred[Any]]) -> None:
        self.tables = tables
        self._in_thread = in_thread
        self._is_working = False
        self._waiting: list[tuple[_Action, Deferred[Any]]] = []

    def do(self, action: Callable[[IStatements], T]) -> Deferred[T]:
        """Call a function within a transaction; fires with its result, or fails.

        Where one of those that go together raises, all of them fail.
        """
        done: Deferred[T] = Deferred()
        self._waiting.append((action, done))
        self._work()
        return done

    def _work(self) -> None:
        if self._is_working or not self._waiting:
            return
        self._is_working = True
        waiting, self._waiting = self._waiting, []
        working = self._in_thread(self._all, [action for action, _ in waiting])
        working.addBoth(self._worked, [done for _, done in waiting])

    def _all(self, actions: Sequence[_Action]) -> Sequence[Any]:
        """Do all of it.  Blocks.  Raises OSError."""
        return self.tables.change(lambda statements: [action(statements) for action in actions])

    def _worked(self, results: Any, waiting: Sequence[Deferred[Any]]) -> None:
        self._is_working = False
        self._work()
        for number, done in enumerate(waiting):
            if isinstance(results, Failure):
                done.errback(results)
            else:
                done.callback(results[number])
