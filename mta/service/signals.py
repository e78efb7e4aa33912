"""Signals of the operator and of systemd."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

FOR_ALL = (signal.SIGHUP, signal.SIGUSR1)  # read the configuration, open the log again


def call_on(reactor: Any, number: signal.Signals, action: Callable[[], None]) -> None:
    """Call a function on a signal, when the reactor does nothing else."""
    signal.signal(number, lambda signum, frame: reactor.callFromThread(action))


@contextmanager
def held_back() -> Iterator[None]:
    """Hold `FOR_ALL` back, here and from processes that are started meanwhile.

    Those `let_through` when they are ready: one that came before would end them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """Let through what was held back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_ALL)


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
