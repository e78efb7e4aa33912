"""The looks at peers, every so often."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mta.doctor import far
from mta.service.peer_looks import INTERVAL, PeerLooks
from mta.service.process import Process


class FakeProcess:
    """A process with a configuration."""

    @property
    def configured(self) -> Any:
        """It is the one in force; what is examined is itself."""
        return self

    examined = "the office"


class LookTests(SynchronousTestCase):
    """A server that looks by itself."""

    def setUp(self) -> None:
        self.clock, self.seen = Clock(), list[str]()
        self.result: Deferred[None] | None = None
        self.patch(far, "look", self.look)
        self.looks = PeerLooks(cast(Process, FakeProcess()), self.clock)
        self.looks.startService()

    async def look(self, examined: str) -> None:
        """In place of a look."""
        self.seen.append(examined)
        if self.result is not None:
            await self.result

    def test_every_so_often(self) -> None:
        """Not at once, and again and again, though one fails."""
        self.assertEqual(self.seen, [])
        self.clock.advance(INTERVAL)
        self.assertEqual(self.seen, ["the office"])
        self.result = Deferred()
        self.clock.advance(INTERVAL)
        self.result.errback(ZeroDivisionError())
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
        self.result = None
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.seen), 3)
        self.looks.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_end(self) -> None:
        """A look that goes on is cut."""
        self.result = Deferred()
        self.clock.advance(INTERVAL)
        self.looks.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.result.called)
