"""The connections of one process that wait for their refusal.

A client that is refused at once comes again at once, and so many of them keep others in the queue
of the listener.  One that waits costs a socket, and little memory: nothing that it says is read.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol

WAIT = 10.0  # seconds until a refusal: a client comes again six times a minute


class WaitingRoom:
    """Refuses connections, oldest first, once each has waited for `WAIT`.

    `size` connections wait at most: where there are more, the oldest is refused at once.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.size = 0
        self._clock = clock
        self._waiting: deque[RefusedConnection] = deque()
        self._timer: IDelayedCall | None = None

    def add(self, connection: RefusedConnection) -> None:
        """Let one more connection wait."""
        connection.end = self._clock.seconds() + WAIT
        self._waiting.append(connection)
        while len(self._waiting) > self.size:
            self._waiting.popleft().refuse()
        self._expect_next()

    def _expect_next(self) -> None:
        if self._timer is None and self._waiting:
            left = self._waiting[0].end - self._clock.seconds()
            self._timer = self._clock.callLater(max(0.0, left), self._time_passed)

    def _time_passed(self) -> None:
        """Refuse the oldest one.  Others work before the next."""
        self._timer = None
        if self._waiting and self._waiting[0].end <= self._clock.seconds():
            self._waiting.popleft().refuse()
        self._expect_next()


class RefusedConnection(Protocol):
    """One connection that waits in `room` until it gets `reply`.

    An empty reply: it is only closed.  `end`: when the clock shows the end of the wait.
    """

    transport: Any  # ITCPTransport or IUNIXTransport
    end = 0.0

    def __init__(self, room: WaitingRoom, reply: bytes) -> None:
        self._room = room
        self._reply = reply

    def connectionMade(self) -> None:
        """Twisted calls this when the connection stands."""
        self.transport.pauseProducing()
        self._room.add(self)

    def refuse(self) -> None:
        """Send the reply, and close."""
        self.transport.write(self._reply)
        self.transport.loseConnection()
