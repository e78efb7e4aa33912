"""The bell of a running process, which other processes on its spool ring to wake it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.spool.folder import give_to_owner_of


@implementer(IReadDescriptor)
class Bell:
    """Our bell: calls `on_ring` in the reactor, once however often it was rung before.

    What it is called with are the rings: `WORK`, `NOW`, `RECALL`.
    """

    log = Logger()

    def __init__(
        self, path: Path, reactor: IReactorFDSet, on_ring: Callable[[bytes], None]
    ) -> None:
        """Make the FIFO and listen to it.  Raises OSError."""
        self._path = path
        self._reactor = reactor
        self._on_ring = on_ring
        self._descriptor = -1
        self._listen()

    def _listen(self) -> None:
        os.mkfifo(self._path, 0o600)
        give_to_owner_of(self._path.parent, self._path)
        # Opened for writing as well: so there never is an end of file.
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._reactor.addReader(self)

    def renew(self) -> None:
        """Make the FIFO again, where somebody removed it.  Raises OSError."""
        if not self._path.exists():
            self.close()
            self._listen()

    def close(self) -> None:
        """Hear no more."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """Twisted asks what to watch."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Twisted asks whom a failure belongs to."""
        return "spool bell"

    def doRead(self) -> None:
        """Twisted found something to read."""
        try:
            self._on_ring(os.read(self._descriptor, 65536))
        except BlockingIOError:
            return  # there is nothing after all
        except Exception:  # noqa: BLE001 - outermost: Twisted would never let it ring again
            self.log.failure("the bell of the spool failed")

    def connectionLost(self, reason: Failure) -> None:
        """Twisted gave the descriptor up, at the end of the process."""
