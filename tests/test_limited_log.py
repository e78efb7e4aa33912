"""A log that is not flooded."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mta.limited_log import INTERVAL, LimitedLog


class LimitedLogTests(SynchronousTestCase):
    """One line a minute for each kind."""

    def test_kinds(self) -> None:
        """The first of each kind at once, and what was left out with the next one."""
        clock = Clock()
        log = LimitedLog(Logger(), clock.seconds)
        with capturedLogs() as events:
            for _ in range(100):
                log.warn("unlink", "can't remove {path}", path="x")
            log.error("read", "can't read {path}", path="y")
            clock.advance(INTERVAL)
            log.warn("unlink", "can't remove {path}", path="z")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "can't remove x",
                "can't read y",
                "can't remove z (and 99 like it since the last such line)",
            ],
        )
