"""Sessions that say one thing again and again, as fast as they are read, and bring no mail.

``python -m bench.programs.hostile PORT SESSIONS BEFORE AGAIN`` ends when it is ended.  BEFORE is
said once on each connection, AGAIN until it is closed; then it is opened anew.  ``|`` is the end of
a line.
"""

from __future__ import annotations

import selectors
import socket
import sys
from contextlib import suppress

SEGMENT = 64 * 1024  # octets that are written at once
SEEN = 1024 * 1024  # octets of replies that are read at once


class Session:
    """One connection, made anew whenever it is closed."""

    def __init__(self, port: int, before: bytes, again: bytes) -> None:
        self._port = port
        self._before = before
        self._segment = again * (SEGMENT // len(again))

    def open(self, selector: selectors.BaseSelector) -> None:
        """Connect, and say what comes first."""
        connection = socket.create_connection(("127.0.0.1", self._port))
        connection.sendall(self._before)
        connection.setblocking(False)
        self._unsent = memoryview(self._segment)
        selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def go_on(self, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        """Read and write what can be."""
        try:
            with suppress(BlockingIOError):
                if not connection.recv(SEEN):
                    raise ConnectionResetError
            with suppress(BlockingIOError):
                self._unsent = self._unsent[connection.send(self._unsent) :]
        except OSError:
            selector.unregister(connection)
            connection.close()
            self.open(selector)
        if not self._unsent:
            self._unsent = memoryview(self._segment)


def main(port: str, sessions: str, before: str, again: str) -> None:
    """See the module."""
    selector = selectors.DefaultSelector()
    octets = [text.replace("|", "\r\n").encode() for text in (before, again)]
    for _ in range(int(sessions)):
        Session(int(port), *octets).open(selector)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            key.data.go_on(key.fileobj, selector)


if __name__ == "__main__":
    main(*sys.argv[1:])
