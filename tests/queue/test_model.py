"""Runners, processes that die, and an office that comes and goes, against a model."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.queued import Filter
from mta.spool.take_over import MAX_SILENT_LOOKS
from mta.testing import MemorySpool
from tests.queue.model import RunnerModelContract
from tests.spool.postgres import PostgresTestCase, PostgresTools
from tests.spool.test_contract import MemorySetting, SqliteSetting


class Surroundings(SynchronousTestCase):
    """What the model asks of a test case, with a wall clock that may be set."""

    jumped = 0.0  # seconds by which the wall clock was set
    tools: Any
    listeners: Any
    wait: Any
    _tool: Any = None

    def setUp(self) -> None:
        if self._tool is not None:
            self._tool.close()  # a database has no end of connections for those of all examples
        ended = getattr(self, "ended", set())
        super().setUp()
        self.ended = {*ended}  # of the spools before this one
        self.jumped = 0.0
        self._tool = None

    def now(self) -> float:
        """Seconds since the epoch, as the wall clock has them."""
        seconds: float = super().now()  # type: ignore[misc]
        return seconds + self.jumped

    @property
    def tool(self) -> Any:
        """What a person has at hand."""
        self._tool = self._tool or self.tools()
        return self._tool

    def deferred(self, coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        """Begin something that takes time."""
        return Deferred.fromCoroutine(coroutine)

    def heard(self, spool: Any) -> list[str]:
        """What a process was asked to do by others."""
        listener = self.listeners[spool]
        heard, listener.heard = listener.heard, []
        return list(heard)

    def set_clock(self, seconds: float) -> None:
        """Set the wall clock by so much."""
        self.jumped += seconds

    def beat(self, spool: Any) -> None:
        """Let a process see the time, and let threads report."""
        self.wait(spool.beat())

    def found(self) -> Mapping[str, tuple[str, float]]:
        """The state and the due time of all that is in the spool."""
        entries = self.tool.find(Filter())
        return {each.message.id: (each.state, each.due) for each in entries}


class MemoryTests(RunnerModelContract, Surroundings, MemorySetting):
    """A spool in memory: a process that dies leaves it to the next one."""

    examples = 40
    is_shared = False

    def setUp(self) -> None:
        super().setUp()
        self.spool = MemorySpool(self.now)

    def process(self) -> MemorySpool:
        """The same spool for each."""
        return self.spool

    def kill(self, spool: MemorySpool) -> None:
        """What was leased is due again."""
        for id, message in list(spool.leased.items()):
            del spool.leased[id]
            spool.put(replace(message, recovered=True))

    stop = kill

    def take_over(self, spool: MemorySpool) -> None:
        """Nothing is left to take over."""

    def heard(self, spool: MemorySpool) -> list[str]:
        """Nobody else is there."""
        return []

    def beat(self, spool: MemorySpool) -> None:
        """Nothing takes time."""

    def found(self) -> Mapping[str, tuple[str, float]]:
        """The messages in it; their due times don't follow the wall clock."""
        return {message.id: ("", 0.0) for message in self.spool.messages}


class SqliteTests(RunnerModelContract, Surroundings, SqliteSetting):
    """A spool in files, with two processes at most."""

    def end_leases(self, spool: Any, other: Any) -> None:
        """Let another process look so often that one that does not beat is believed dead."""
        for _ in range(MAX_SILENT_LOOKS + 1):
            self.take_over(other)


class PostgresTests(RunnerModelContract, Surroundings, PostgresTestCase):
    """A spool in PostgreSQL, with two processes of one node at most."""

    examples = 5

    def tools(self) -> PostgresTools:
        """See `PostgresTestCase.tools`: what is due does not follow the clock that is set."""
        opened = PostgresTools(self.url, self.path, super(Surroundings, self).now)
        self.addCleanup(opened.close)
        return opened

    def set_clock(self, seconds: float) -> None:
        """Set the clock of the database, by which the nodes go."""
        super().set_clock(seconds)
        self.sql("UPDATE owner SET alive_until = alive_until - make_interval(secs => %s)", seconds)

    def end_leases(self, spool: Any, other: Any) -> None:
        """Let the time of one process run out."""
        self.sql("UPDATE owner SET alive_until = '-infinity' WHERE id = %s", spool._owner.number)
        self.take_over(other)
