"""The time of a spool in PostgreSQL: that of the database.

Between two looks at it a process counts on by a clock that is never set.  That clock shows as well
where the database's was set: by as much all times are corrected from then on, so that nothing that
waits is due earlier or later, or older, for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mta.spool.clock import TOLERANCE, seconds_since_boot
from mta.spool.postgres.owner_rows import LIFETIME
from mta.spool.postgres.server import Connection, Session

# After an owner has died nothing puts off its end: it must not be a day away.
_MOVE_OWNERS = f"""
UPDATE owner SET alive_until = least(
    alive_until + %s * interval '1 second', clock_timestamp() + interval '{LIFETIME} seconds'
)
"""  # noqa: S608 (our own words)
_SEEN = "SELECT clock_offset, correction FROM owner WHERE id = %s AND clock_offset IS NOT NULL"
_NOTE = "UPDATE owner SET clock_offset = %s, correction = %s WHERE id = %s"


class DatabaseClock:
    """Seconds since the epoch, as all processes on a spool have them.

    Until the database was heard they are those of this node.
    """

    def __init__(
        self, uptime: Callable[[], float], wall: Callable[[], float] | None = None
    ) -> None:
        """`uptime`: seconds of a clock that is never set.

        `wall`: seconds since the epoch, instead of the database's.
        """
        self._uptime = uptime
        self._wall = wall
        self._seen_at_start: tuple[float, float] | None = None
        self._raw = (wall or time.time)() - uptime()  # of the database's clock, from ours
        self._offset = self._raw  # the same, corrected

    def __call__(self) -> float:
        """The time now."""
        return self._uptime() + self._offset

    @property
    def node_ahead(self) -> float:
        """The seconds that this node is ahead of the database."""
        return 0.0 if self._wall is not None else time.time() - self._uptime() - self._raw

    def hear(self, connection: Connection) -> None:
        """Take the time from the database, which has tables.  Raises psycopg.Error."""
        row = connection.execute("SELECT correction FROM clock").fetchone()
        assert row is not None
        self._raw = self._read(connection) - self._uptime()
        self._offset = self._raw + row[0]

    def follow(self, connection: Connection, owner: int = 0) -> float:
        """Compare the database's clock with that of an owner, in a transaction.

        Without an owner at a start, before there is one.  Returns the seconds by which the
        database's was set, where no other process has seen it before.  Raises psycopg.Error.
        """
        # What is read after this lock was not read by others that correct the same.
        row = connection.execute("SELECT wall, correction FROM clock FOR UPDATE").fetchone()
        assert row is not None
        last, correction = row
        now = self._read(connection)
        offset = now - self._uptime()
        seen = _seen_by(connection, owner) or self._seen_at_start
        if seen is None:
            jumped = min(now - float(last), 0.0)
        else:
            jumped = _jump(offset - seen[0], correction - seen[1])
        if abs(jumped) <= TOLERANCE:
            jumped = 0.0
        else:
            correction -= jumped
            connection.execute(_MOVE_OWNERS.encode(), (jumped,))
        connection.execute("UPDATE clock SET wall = %s, correction = %s", (now, correction))
        if owner:
            connection.execute(_NOTE, (offset, correction, owner))
        else:
            self._seen_at_start = offset, correction
        self._raw, self._offset = offset, offset + correction
        return jumped

    def _read(self, connection: Connection) -> float:
        if self._wall is not None:
            return self._wall()
        row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        assert row is not None
        return float(row[0])


def _seen_by(connection: Connection, owner: int) -> tuple[float, float] | None:
    """The offset and the correction at an owner's last beat."""
    return connection.execute(_SEEN, (owner,)).fetchone()


def _jump(by: float, corrected: float) -> float:
    """The seconds of a jump that are not corrected yet.

    `by`: how far the database's clock went from ours, `corrected`: what others have done about it.
    A process that began after a jump, and before others saw it, has seen none.
    """
    return by + corrected if abs(by) > TOLERANCE else 0.0


def clock_of(session: Session) -> DatabaseClock:
    """The time of a spool, for a command.  Raises OSError."""
    clock = DatabaseClock(seconds_since_boot)
    session.call(clock.hear)
    return clock
