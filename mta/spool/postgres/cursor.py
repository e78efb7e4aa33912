"""The place in an index at which a look for mail begins.

What was leased or removed stays in an index until the server has vacuumed, which any long
transaction in its cluster keeps it from: a look from the beginning then passes over all of it.  So
one that took long is followed by looks from where it got to, for some time.  Mail that comes to lie
before that place meanwhile is found by the next one from the beginning.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.interfaces import IReactorTime

MAX_CHEAP = 0.01  # seconds: a look from the beginning that takes less may be repeated at once
PAUSE_FACTOR = 10  # so many times as long as one took, none follows: a tenth of the time at most
MAX_PAUSE = 30.0  # seconds: mail waits no longer for being seen
MAX_HELD = 1000  # cursors for held mail: a peer may name any of its domains


class Cursor:
    """Remembers how far looks through one index have come."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._place: Any = None
        self._next_whole = 0.0  # of the clock: the next look from the beginning
        self._began = 0.0

    def start(self) -> Any:
        """The place at which to begin; None: the beginning."""
        return None if self._clock.seconds() >= self._next_whole else self._place

    def begin(self) -> Any:
        """Begin a look; returns `start`."""
        self._began = self._clock.seconds()
        return self.start()

    def end(self, start: Any, place: Any) -> None:
        """Note how far the look from `start` came.  A `place` of None: nowhere."""
        if place is not None:
            self._place = place
        took = self._clock.seconds() - self._began
        if start is None and took > MAX_CHEAP:
            self._next_whole = self._clock.seconds() + min(took * PAUSE_FACTOR, MAX_PAUSE)


class Cursors:
    """The cursors of one process.

    There is one for what is due, and one for each choice of held mail.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._held: dict[tuple[str, frozenset[str]], Cursor] = {}
        self.due = self.new()

    def held(self, peer: str, domains: Collection[str]) -> Cursor:
        """The one for mail that waits for a peer in these domains."""
        key = peer, frozenset(domains)
        if key not in self._held and len(self._held) >= MAX_HELD:
            self._held.clear()
        return self._held.setdefault(key, self.new())

    def new(self) -> Cursor:
        """One that begins at the beginning."""
        return Cursor(self._clock)
