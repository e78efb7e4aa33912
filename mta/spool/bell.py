"""Wakes processes that share a spool: a FIFO for each, into which the others write an octet."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.spool.folder import Folder, give_to_owner_of

SUFFIX = ".wake"
WORK = b"\n"  # there is something to do
NOW = b"!"  # somebody wants it tried now, whatever was unreachable a moment ago
RECALL = b"?"  # somebody removed messages or put them on hold, perhaps such as are being worked on


@implementer(IReadDescriptor)
class Bell:
    """Our bell: calls `on_ring` in the reactor, once however often it was rung before.

    What it is called with are the rings: `WORK`, `NOW`, `RECALL`.
    """

    def __init__(
        self, path: Path, reactor: IReactorFDSet, on_ring: Callable[[bytes], None]
    ) -> None:
        """Make the FIFO and listen to it.  Raises OSError."""
        os.mkfifo(path, 0o600)
        give_to_owner_of(path.parent, path)
        # Opened for writing as well: so there never is an end of file.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._reactor = reactor
        self._on_ring = on_ring
        reactor.addReader(self)

    def close(self) -> None:
        """Hear no more."""
        self._reactor.removeReader(self)
        os.close(self._descriptor)

    def fileno(self) -> int:
        """Twisted asks what to watch."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Twisted asks whom a failure belongs to."""
        return "spool bell"

    def doRead(self) -> None:
        """Twisted found something to read."""
        self._on_ring(os.read(self._descriptor, 65536))

    def connectionLost(self, reason: Failure) -> None:
        """Twisted gave the descriptor up, at the end of the process."""


def ring(folder: Folder, ours: Path | None = None, what: bytes = WORK) -> None:
    """Wake every process on the spool but our own, whose bell is at `ours`.

    `what`: `WORK`, `NOW` or `RECALL`.
    """
    for path in folder.owners.iterdir():
        if path.suffix == SUFFIX and path != ours:
            _ring(path, what)


def _ring(path: Path, what: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # its owner is dead
    try:
        os.write(descriptor, what)
    except BlockingIOError:
        pass  # it has been rung often enough
    finally:
        os.close(descriptor)
