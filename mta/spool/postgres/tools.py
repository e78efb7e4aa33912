"""The spool in PostgreSQL as the command line uses it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path

from zope.interface import implementer

from mta.mail import Envelope
from mta.queued import EVERYWHERE, Entry, Filter, IDraft, Message, Notice
from mta.session import UNKNOWN_ORIGIN, Origin
from mta.spool import attempts, owners, queue_id
from mta.spool.folder import Folder
from mta.spool.interfaces import ITools
from mta.spool.listing import DAMAGED, Listed, portions
from mta.spool.postgres import leases, owner_rows, rows, schema
from mta.spool.postgres.content import PostgresContent
from mta.spool.postgres.database_clock import clock_of
from mta.spool.postgres.listing import PostgresListing
from mta.spool.postgres.loading import load, salvage
from mta.spool.postgres.server import Connection, Server, Session, transaction
from mta.spool.postgres.sync_spool import PostgresSyncSpool, at_once, sync_spool
from mta.spool.postgres.taken import remembered
from mta.spool.postgres.wakeups import NotifyingWaker
from mta.spool.rows import Arrival
from mta.spool.schema import Hold
from mta.spool.sync_spool import enqueued, notice_of
from mta.spool.wakeup import Signal

_BATCH_SIZE = 500  # messages changed in one commit: others want to change them, too

_HOLD = f"""
UPDATE schedule SET on_hold = {Hold.BY_HAND:d}, due = 'Infinity' WHERE on_hold = 0
"""  # noqa: S608 (our own words)
_RELEASE = """
UPDATE schedule SET on_hold = 0, reason = '', deaths = 0,
    due = CASE WHEN owner IS NULL THEN %(now)s ELSE due END
WHERE (on_hold <> 0 OR owner IS NULL)
"""
_RETRY = "UPDATE schedule SET due = %(now)s WHERE owner IS NULL AND on_hold = 0"


@implementer(ITools)
class PostgresTools:
    """The spool in a database.  Everything blocks, and raises OSError where it fails.

    `now`: seconds since the epoch, the database's where it is not given.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        now: Callable[[], float] | None = None,
        reserve: int = 0,
    ) -> None:
        """Open the spool, making it if need be.  Raises SpoolUnusable or OSError.

        `folder` is that of this node; `reserve`: octets of its disk that new mail leaves free.
        """
        self._server = Server(url)
        self._folder = Folder(folder, reserve)
        self._session = Session(self._server)
        self._session.call(lambda connection: schema.prepare(self._server, connection))
        self._now = now or clock_of(self._session)
        self._source = PostgresContent(self._session, at_once)
        self._listing = PostgresListing(Session(self._server), self._now)
        self._waker = NotifyingWaker(self._session)

    def now(self) -> float:
        """See `ISpoolTime.now`."""
        return self._now()

    def close(self) -> None:
        """Close the spool."""
        self._listing.close()
        self._session.close()

    # --- looking -----------------------------------------------------------------------

    def listed(self, wanted: Filter) -> Iterator[Listed]:
        """The messages that fit in short, oldest first."""
        return self._listing.find(wanted)

    def find(self, wanted: Filter) -> Iterator[Entry]:
        """The messages that fit, oldest first; their content needs no reactor."""
        for listed in self._listing.find(wanted):
            entry = self._session.call(self._entry, queue_id.decode(listed.id), listed)
            if entry is not None:
                yield entry

    def _entry(self, connection: Connection, number: int, listed: Listed) -> Entry | None:
        """All that can be read of a listed message; None: it's gone."""
        loaded = load(connection, [number], self._source.content)
        for message in loaded.messages:
            return Entry(message, listed.state, listed.due, listed.on_hold, listed.reason)
        if number not in loaded.damaged:
            return None
        message = salvage(connection, number, self._source.content)
        return Entry(message, DAMAGED, float("inf"), listed.on_hold, loaded.damaged[number])

    def count(self, wanted: Filter) -> int:
        """Count the messages that fit."""
        return self._listing.count(wanted)

    def count_held(self, peer: str) -> int:
        """Count the messages that wait for a peer."""
        return self._session.call(leases.count_held, peer, [EVERYWHERE], None)

    # --- changing ----------------------------------------------------------------------

    @contextmanager
    def in_portions(self) -> Iterator[Callable[[], None]]:
        """Wake the servers seldom during many changes, and at the end.

        Gives a function to be called between portions of them.
        """
        with self._waker.seldom():
            yield lambda: None  # others need not wait for our commits

    def hold(self, ids: Collection[str]) -> list[str]:
        """Put messages on hold until `release`; returns which were changed.

        One under way is on hold when its attempt ends.
        """
        return self._change(_HOLD, ids, Signal.RECALL)

    def release(self, ids: Collection[str]) -> list[str]:
        """Undo `hold`, and make free messages due now; returns which were changed."""
        return self._change(_RELEASE, ids, Signal.RETRY)

    def retry(self, ids: Collection[str]) -> list[str]:
        """Make free messages due now that are not on hold; returns which."""
        return self._change(_RETRY, ids, Signal.RETRY)

    def delete(self, ids: Collection[str]) -> list[str]:
        """Remove messages without a notice, leased ones, too; returns which."""
        found = [self._session.call(_remove, each) for each in portions(ids, _BATCH_SIZE)]
        self._waker.wake(Signal.RECALL)
        return _encoded(found)

    def _change(self, statement: str, ids: Collection[str], signal: Signal) -> list[str]:
        """Change those of the messages that it applies to; returns their ids."""
        self._take_over()
        statement += " AND id = ANY(%(ids)s) RETURNING id"

        def change(connection: Connection, portion: Sequence[int]) -> list[int]:
            with transaction(connection):
                values = {"now": self._now(), "ids": list(portion)}
                return rows.ids(connection.execute(statement.encode(), values))

        changed = [self._session.call(change, each) for each in portions(ids, _BATCH_SIZE)]
        self._waker.wake(signal)
        return _encoded(changed)

    def _take_over(self) -> None:
        """Free what dead owners had leased.  No server may be up to do it."""
        dead = list(owners.dead_owners(self._folder, ours=0)) if self._folder.path.exists() else []
        try:
            # A server that comes later has to know what was tried: it takes these over itself.
            ended = [each for each in dead if not attempts.noted_in(each.attempts)]
            self._session.call(_free, [each.number for each in dead], self._now())
            for each in ended:
                each.remove()
        finally:
            for each in dead:
                each.close()

    # --- new messages ------------------------------------------------------------------

    def sync_spool(self) -> AbstractContextManager[PostgresSyncSpool]:
        """Be an owner with a way into the spool.  Raises OSError."""
        return sync_spool(self._session, self._folder, self._now)

    def enqueue(
        self, envelope: Envelope, pieces: Iterable[bytes], origin: Origin = UNKNOWN_ORIGIN
    ) -> str:
        """Put a message into the spool, due now; returns its queue id.  See `enqueued`."""
        with self.sync_spool() as spool:
            return enqueued(spool, envelope, pieces, origin)

    def taken(self) -> Collection[tuple[str, int]]:
        """See `ITools.taken`."""
        return self._session.call(remembered)

    def bounce(self, bounced: Sequence[tuple[Message, Notice | None]]) -> list[str]:
        """Replace free messages by their notices, in one commit; returns which.

        A message that was attempted since it was read stays: what its notice says may be wrong.
        Raises SpoolFull or OSError; then nothing is changed.
        """
        self._take_over()
        with self.sync_spool() as spool:
            notices = {
                queue_id.decode(message.id): notice_of(spool, notice)
                for message, notice in bounced
                if notice is not None
            }
            removed: set[int] = set()
            try:
                removed = self._session.call(_replace, bounced, notices)
            finally:
                for number in notices.keys() - removed:
                    notices[number][0].discard()
        self._waker.wake(Signal.WORK)
        return [*map(queue_id.encode, sorted(removed))]


def _encoded(changed: Iterable[Sequence[int]]) -> list[str]:
    """The ids of messages that were changed in portions, oldest first."""
    return [*map(queue_id.encode, sorted(chain.from_iterable(changed)))]


def _remove(connection: Connection, numbers: Sequence[int]) -> list[int]:
    query = "SELECT id FROM schedule WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
    with transaction(connection):
        found = rows.ids(connection.execute(query, (numbers,)))
        rows.remove(connection, found)
    return found


def _free(connection: Connection, ended: Collection[int], now: float) -> None:
    with transaction(connection):
        dead = owner_rows.bury(connection, ended)
        owner_rows.free_leased(connection, dead, now)
        owner_rows.make_released_due(connection, dead, now, None)


def _replace(
    connection: Connection,
    bounced: Sequence[tuple[Message, Notice | None]],
    notices: Mapping[int, tuple[IDraft, Arrival]],
) -> set[int]:
    """Remove untouched messages, and insert their notices; returns their numbers."""
    known = {queue_id.decode(message.id): message.attempts for message, _ in bounced}
    query = (
        "SELECT id, attempts FROM schedule WHERE owner IS NULL AND id = ANY(%s)"
        " ORDER BY id FOR UPDATE"
    )
    with transaction(connection):
        found = connection.execute(query, (list(known),)).fetchall()
        removed = {number for number, count in found if known[number] == count}
        rows.remove(connection, removed)
        rows.insert(connection, [notices[number][1] for number in removed & notices.keys()])
    return removed
