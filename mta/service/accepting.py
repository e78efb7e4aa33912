"""Listening sockets from which no connection can be taken for a while.

Where the system has no descriptor or memory for a connection, it goes on to say that there is one:
without a rest, the reactor would do nothing but ask for it.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mta.limited_log import LimitedLog

REST = 0.1  # seconds: for other connections to end

_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class _Watched:
    """A listening socket that knows why it gave no connection."""

    def __init__(self, socket: Any) -> None:
        self.error = 0
        self._socket = socket

    def accept(self) -> Any:
        """Take a connection, as the socket does."""
        try:
            return self._socket.accept()
        except OSError as error:
            if error.errno in _SHORT:
                self.error = error.errno or 0
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class RestingPort:
    """Lets a port of Twisted's rest where no connection can be taken."""

    log = Logger()

    def __init__(self, port: Any, reactor: IReactorTime) -> None:
        self._port = port
        self._reactor = reactor
        self._limited = LimitedLog(self.log, reactor.seconds)
        self._resting: IDelayedCall | None = None
        self._socket = port.socket = _Watched(port.socket)
        self._read = port.doRead
        port.doRead = self._take

    def stop(self) -> None:
        """Take no more connections."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self._port.stopReading()

    def _take(self) -> None:
        """Take what waits.  The reactor calls this."""
        self._socket.error = 0
        self._read()
        if not self._socket.error:
            return
        reason = os.strerror(self._socket.error)
        self._limited.warn(
            "accept", "connections can't be taken, and wait: {reason}", reason=reason
        )
        self._port.stopReading()
        self._rest()

    def _rest(self) -> None:
        self._resting = self._reactor.callLater(REST, self._go_on)

    def _go_on(self) -> None:
        """Take connections again, unless the port was closed meanwhile."""
        self._resting = None
        if not self._port.connected or self._port.disconnecting:
            return
        try:
            self._port.startReading()
        except OSError:  # the reactor can't watch one more
            self._rest()
