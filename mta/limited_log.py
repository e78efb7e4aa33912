"""Logging of events that repeat: one line a minute for each kind."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger, LogLevel

INTERVAL = 60.0  # seconds between two lines of a kind


class LimitedLog:
    """Logs one event of a kind a minute, and counts the others.

    Kinds are words of the program, never a peer's: each is remembered for good.
    """

    def __init__(self, log: Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warn(self, kind: str, template: str, **fields: Any) -> None:
        """Log a warning, or count it as one that was left out.  May be called in threads."""
        self._emit(LogLevel.warn, kind, template, fields)

    def error(self, kind: str, template: str, **fields: Any) -> None:
        """Log an error, or count it as one that was left out.  May be called in threads."""
        self._emit(LogLevel.error, kind, template, fields)

    def _emit(self, level: Any, kind: str, template: str, fields: dict[str, Any]) -> None:
        now = self._clock()
        if now < self._next.get(kind, now):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._next[kind] = now + INTERVAL
        if left_out := self._left_out.pop(kind, 0):
            template += " (and {left_out} like it since the last such line)"
            fields["left_out"] = left_out
        self._log.emit(level, template, **fields)
