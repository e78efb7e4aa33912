"""Signals of the operator and of systemd."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from typing import Any


def call_on(reactor: Any, number: signal.Signals, action: Callable[[], None]) -> None:
    """Call a function on a signal, when the reactor does nothing else."""
    signal.signal(number, lambda signum, frame: reactor.callFromThread(action))


class StopSignals:
    """Passes the first signal to stop on to Twisted, and no other.

    systemd sends one to every process, and the first process another one to its workers; Twisted
    takes a second one for a fault.
    """

    def __init__(self) -> None:
        self.has_come = False

    def watch(self) -> None:
        """Stand before Twisted's own handlers, which are there when the reactor runs."""
        for number in (signal.SIGINT, signal.SIGTERM):
            theirs = signal.getsignal(number)
            if callable(theirs):
                signal.signal(number, partial(self._pass_on, theirs))

    def _pass_on(self, theirs: Callable[[int, Any], object], number: int, frame: Any) -> None:
        if not self.has_come:
            self.has_come = True
            theirs(number, frame)
