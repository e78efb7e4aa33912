"""Wakes the processes that share a spool.

Each has a FIFO (`mta.spool.wakeup_pipe`), into which the others write one octet.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from zope.interface import implementer

from mta.spool.folder import Folder
from mta.spool.interfaces import IWaker

SUFFIX = ".wake"
_WAKE_INTERVAL = 1.0  # seconds: a woken server may probe each host that is down


class Signal(Enum):
    """The octet that is written."""

    WORK = b"\n"  # mail is due, or held for a peer
    RETRY = b"!"  # a person wants mail tried now, whatever was unreachable a moment ago
    RELOAD = b"R"  # a command changed the configuration
    RECALL = b"?"  # a person removed messages or put them on hold, perhaps leased ones


def wake_processes(
    folder: Folder, signal: Signal = Signal.WORK, *, except_for: Path | None = None
) -> None:
    """Wake every process on the spool, except for one, by its FIFO.

    A FIFO that can't be written loses nothing but time: what is due is found without it.
    """
    try:
        pipes = [path for path in folder.owners.iterdir() if path.suffix == SUFFIX]
    except OSError:
        return
    for path in pipes:
        if path != except_for:
            _write(path, signal)


@implementer(IWaker)
@dataclass(frozen=True, slots=True)
class Waker:
    """Wakes the others for the process with a FIFO of its own."""

    folder: Folder
    own: Path

    def wake_others(self) -> None:
        """See `IWaker.wake_others`."""
        wake_processes(self.folder, except_for=self.own)


class ToolWaker(ABC):
    """Wakes the servers for a tool, seldom during many changes."""

    def __init__(self) -> None:
        self._unsent: set[Signal] = set()
        self._next_wake = 0.0  # of the monotonic clock; 0: at once, always

    @abstractmethod
    def send(self, signal: Signal) -> None:
        """Wake all of them now."""

    def wake(self, *signals: Signal) -> None:
        """Wake the servers, now or with what comes next."""
        self._unsent.update(signals)
        now = time.monotonic()
        if now >= self._next_wake:
            if self._next_wake:
                self._next_wake = now + _WAKE_INTERVAL
            for signal in self._unsent:
                self.send(signal)
            self._unsent.clear()

    @contextmanager
    def seldom(self) -> Iterator[None]:
        """Wake them seldom during many changes, and at the end."""
        self._next_wake = time.monotonic()
        try:
            yield
        finally:
            self._next_wake = 0.0
            self.wake()


def _write(path: Path, signal: Signal) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # its owner is dead
    try:
        os.write(descriptor, signal.value)
    except OSError:
        pass  # it is full, so it wakes its owner anyway, or the owner died this moment
    finally:
        os.close(descriptor)
