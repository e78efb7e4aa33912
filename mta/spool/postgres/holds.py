"""Standing holds in PostgreSQL: one document, which all nodes read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zope.interface import implementer

from mta.mail import Envelope
from mta.spool.holds import StandingHold, first_fitting, read, without, written
from mta.spool.interfaces import IStandingHolds
from mta.spool.postgres.server import Connection, Session, transaction

_NAME = "holds"

Change = Callable[[Sequence[StandingHold]], Sequence[StandingHold]]


@implementer(IStandingHolds)
class PostgresHolds:
    """The standing holds of a spool, as the command line uses them.  Everything blocks."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def current(self) -> Sequence[StandingHold]:
        """The holds that stand now.  Raises OSError."""
        return self._session.call(standing)

    def which(self, envelope: Envelope) -> StandingHold | None:
        """The first that a message fits, if any.  Raises OSError."""
        return first_fitting(self.current(), envelope)

    def add(self, hold: StandingHold) -> None:
        """Add one, for all nodes; nothing where it stands.  Raises OSError."""
        self._session.call(_changed, lambda holds: [*without(holds, hold), hold])

    def lift(self, hold: StandingHold) -> bool:
        """Take one away; returns whether it stood.  Raises OSError."""
        before = self._session.call(_changed, lambda holds: without(holds, hold))
        return any(each.parts == hold.parts for each in before)


def standing(connection: Connection) -> Sequence[StandingHold]:
    """The holds that stand now."""
    row = connection.execute("SELECT value FROM document WHERE name = %s", (_NAME,)).fetchone()
    return read(row[0]) if row else ()


def _changed(connection: Connection, change: Change) -> Sequence[StandingHold]:
    """Change the holds; returns those of before."""
    with transaction(connection):
        connection.execute("LOCK TABLE document IN SHARE ROW EXCLUSIVE MODE")
        before = standing(connection)
        connection.execute(
            "INSERT INTO document VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET"
            " value = excluded.value",
            (_NAME, written(change(before))),
        )
    return before
