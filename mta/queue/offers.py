"""The pace at which a peer is offered again what it deferred.

What is new for it never waits for that.
"""

from __future__ import annotations

from collections.abc import Callable

# Seconds until mail that the peer deferred is offered to it again: a little less than those between
# two looks at held mail, so that each look finds it.
PAUSE_AFTER_DEFERRAL = 50.0
MAX_DEFERRED = 100  # messages: a peer that defers so many in one pause is offered new ones alone

_ONLY_NEW = 1.0  # seconds since the epoch: before that nothing was offered to any peer


class Offers:
    """The mail that one connection may offer its peer.

    `now`: seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._opened = self._began = now()
        self._deferred = 0  # messages, since the pause began

    @property
    def before(self) -> float:
        """The time before which it was last offered; see `IHeldLeases.lease_held`."""
        now = self._now()
        if self._deferred >= MAX_DEFERRED and self._is_paused(now):
            return _ONLY_NEW
        return max(self._opened, now - PAUSE_AFTER_DEFERRAL)

    def deferred(self) -> None:
        """Note that the peer did not take a message."""
        now = self._now()
        if not self._is_paused(now):
            self._began, self._deferred = now, 0
        self._deferred += 1

    def _is_paused(self, now: float) -> bool:
        return self._began <= now < self._began + PAUSE_AFTER_DEFERRAL
