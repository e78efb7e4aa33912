"""The clock of the database, by which all nodes go."""

from __future__ import annotations

import time
from collections.abc import Callable

from mta.spool.postgres.server import Connection

_MAX_LOOK = 1.0  # seconds: the answer of a look that took longer is too old

_NOW = "SELECT extract(epoch FROM clock_timestamp())::double precision"


class DatabaseClock:
    """The database's time, as this node knows it: seconds since the epoch.

    Between two looks it goes on by a clock that is never set; before the first one it is the time
    of this node.
    """

    def __init__(self, uptime: Callable[[], float]) -> None:
        """`uptime`: seconds of a clock that is never set."""
        self._uptime = uptime
        self._offset: float | None = None

    def __call__(self) -> float:
        """Return the time."""
        return time.time() if self._offset is None else self._uptime() + self._offset

    def look(self, connection: Connection) -> float:
        """Ask the database; returns the seconds that this node is ahead."""
        begun = self._uptime()
        [(there,)] = connection.execute(_NOW).fetchall()
        ended = self._uptime()
        if self._offset is None or ended - begun < _MAX_LOOK:
            self._offset = there - ended
        return time.time() - self()
