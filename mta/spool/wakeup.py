"""Wakes the processes that share a spool: each has a FIFO, into which the others write an octet."""

from __future__ import annotations

import os
from pathlib import Path

from mta.spool.folder import Folder

SUFFIX = ".wake"
WORK = b"\n"  # there is something to do
NOW = b"!"  # somebody wants it tried now, whatever was unreachable a moment ago
RECALL = b"?"  # somebody removed messages or put them on hold, perhaps such as are being worked on


def ring(folder: Folder, ours: Path | None = None, what: bytes = WORK) -> None:
    """Wake every process on the spool but our own, whose bell is at `ours`.

    `what`: `WORK`, `NOW` or `RECALL`.  A bell that can't be rung loses nothing but time: what is
    due is found without.
    """
    try:
        bells = [path for path in folder.owners.iterdir() if path.suffix == SUFFIX]
    except OSError:
        return
    for path in bells:
        if path != ours:
            _ring(path, what)


def _ring(path: Path, what: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # its owner is dead
    try:
        os.write(descriptor, what)
    except OSError:
        pass  # it has been rung often enough, or died this moment
    finally:
        os.close(descriptor)
