"""A reactor whose timers do not depend on the wall clock."""

from __future__ import annotations

import time
from typing import Any


def use_steady_clock(reactor: Any) -> None:
    """Let the reactor count seconds by the monotonic clock.

    Twisted counts them by the wall clock: when that is set back by an hour, every time-out and
    every pause under way takes an hour longer.
    """
    shift = time.monotonic() - reactor.seconds()
    reactor.seconds = time.monotonic
    for call in reactor.getDelayedCalls():
        call.time += shift
        call.seconds = time.monotonic
