"""Wakes the processes that share a spool.

Each has a FIFO (`mta.spool.wakeup_pipe`), into which the others write one octet.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from zope.interface import implementer

from mta.spool.folder import Folder
from mta.spool.interfaces import IWaker

SUFFIX = ".wake"


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
