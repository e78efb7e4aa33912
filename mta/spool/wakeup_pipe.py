"""The FIFO by which other processes on the spool wake this one."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.files import give_to_folder_owner
from mta.interfaces import ISpoolListener
from mta.spool.wakeup import Signal


@implementer(IReadDescriptor)
class WakeupPipe:
    """Reads our FIFO, and tells the listener why we are woken."""

    log = Logger()

    def __init__(self, path: Path, reactor: IReactorFDSet, listener: ISpoolListener) -> None:
        """Make the FIFO and listen to it.  Raises OSError."""
        self._path = path
        self._reactor = reactor
        self._listener = listener
        self._descriptor = -1
        self._open()

    def _open(self) -> None:
        os.mkfifo(self._path, 0o600)
        give_to_folder_owner(self._path)
        # Opened for writing as well: so there never is an end of file.
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._reactor.addReader(self)

    def renew(self) -> None:
        """Make the FIFO again where its file was removed, or not opened.  Raises OSError."""
        if self._descriptor < 0 or not self._path.exists():
            self.close()
            self._path.unlink(missing_ok=True)
            self._open()

    def close(self) -> None:
        """Stop reading."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """Tell Twisted what to watch."""
        return self._descriptor

    def logPrefix(self) -> str:
        """The name that Twisted logs failures under."""
        return "spool wake-up pipe"

    def doRead(self) -> None:
        """Read what Twisted found."""
        try:
            self._tell(os.read(self._descriptor, 65536))
        except BlockingIOError:
            return  # there is nothing after all
        except Exception:  # noqa: BLE001 - outermost: Twisted would never read it again
            self.log.failure("waking the process failed")

    def _tell(self, signals: bytes) -> None:
        if Signal.RETRY.value in signals:
            self._listener.retry()
        if Signal.RECALL.value in signals:
            self._listener.recall()
        if Signal.RELOAD.value in signals:
            self._listener.reload()
        self._listener.wake()

    def connectionLost(self, reason: Failure) -> None:
        """Ignore that Twisted gave the descriptor up: the process ends."""
