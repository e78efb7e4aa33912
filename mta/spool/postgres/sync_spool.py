"""The spool in PostgreSQL for programs without a reactor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from mta.mail import Envelope
from mta.queued import Entry, IDraft, Message
from mta.session import Origin
from mta.spool import queue_id
from mta.spool.drafts import Draft, Incoming
from mta.spool.folder import Folder
from mta.spool.interfaces import IToolSpool
from mta.spool.postgres import owner_rows, rows
from mta.spool.postgres.content import ChunkedDrafts, PostgresContent, Uploads
from mta.spool.postgres.holds import PostgresHolds
from mta.spool.postgres.loading import load
from mta.spool.postgres.server import Connection, Session, transaction
from mta.spool.postgres.taken import restore_taken
from mta.spool.postgres.wakeups import notify
from mta.spool.restoring import Restored, restored
from mta.spool.rows import Arrival
from mta.spool.sync_spool import due_arrival
from mta.spool.wakeup import Signal

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@implementer(IToolSpool)
class PostgresSyncSpool:
    """A way into the spool.  Messages are due, and not leased."""

    def __init__(
        self, session: Session, folder: Folder, owner: int, now: Callable[[], float]
    ) -> None:
        """`folder`: of this node.  `now`: seconds since the epoch."""
        self._session = session
        self._owner = owner
        self._name = _tool(owner)
        self._ids = queue_id.QueueIds(now)
        self._now = now
        self._holds = PostgresHolds(session)
        self._source = PostgresContent(session, at_once)
        self._drafts = ChunkedDrafts(folder, self._source, Uploads(session, owner))

    def draft(self) -> Draft:
        """See `ISpool.draft`."""
        return self._drafts.begin(self._ids.next(), set())

    def restore(self, entries: Sequence[Entry]) -> None:
        """See `IToolSpool.restore`."""
        drafts = [self._drafts.begin(queue_id.decode(each.message.id), set()) for each in entries]
        try:
            found = [
                restored(self, draft, entry, self._owner)
                for draft, entry in zip(drafts, entries, strict=True)
            ]
            self._session.call(self._restore, found)
        except BaseException:
            for draft in drafts:
                draft.discard()
            raise
        for draft in drafts:
            draft.committed()

    def _restore(self, connection: Connection, found: Sequence[Restored]) -> None:
        held = [(each.hold, each.arrival.number) for each in found if each.hold is not None]
        with transaction(connection):
            owner_rows.beat(connection, self._name)  # it takes longer than we live without
            rows.insert(connection, [each.arrival for each in found])
            rows.update(connection, self._owner, [each.settlement for each in found])
            connection.cursor().executemany(
                "UPDATE schedule SET on_hold = 1, due = 'Infinity', reason = %s WHERE id = %s", held
            )

    def restore_taken(self, taken: Collection[tuple[str, int]]) -> None:
        """See `IToolSpool.restore_taken`."""
        self._session.call(restore_taken, taken)

    async def commit(
        self, draft: IDraft, envelope: Envelope, header: bytes, origin: Origin, hold: str = ""
    ) -> Message:
        """See `ISpool.commit`; but the message is not leased, and due."""
        assert isinstance(draft, Draft)
        try:
            arrival = self.arrival(Incoming(draft, envelope, header, origin, hold))
            message = self._session.call(self._insert, arrival)
        except BaseException:
            draft.discard()
            raise
        draft.committed()
        return message

    def _insert(self, connection: Connection, arrival: Arrival) -> Message:
        with transaction(connection):
            rows.insert(connection, [arrival])
            # Once it is committed, it may be gone at once.
            [message] = load(connection, [arrival.number], self._source.content).messages
        notify(connection, Signal.WORK)
        return message

    def arrival(self, incoming: Incoming) -> Arrival:
        """See `IToolSpool.arrival`."""
        return due_arrival(incoming, self._holds, self._now())


@contextmanager
def sync_spool(
    session: Session, folder: Folder, now: Callable[[], float]
) -> Iterator[PostgresSyncSpool]:
    """Be an owner with a way into the spool.  Raises OSError."""
    owner = queue_id.QueueIds(now).next()
    session.call(owner_rows.register, _tool(owner))
    try:
        yield PostgresSyncSpool(session, folder, owner, now)
    finally:
        session.call(_leave, owner, now())


def _tool(owner: int) -> owner_rows.OwnerName:
    """An owner for a moment, which is no node."""
    return owner_rows.OwnerName(owner, "")


def _leave(connection: Connection, owner: int, now: float) -> None:
    with transaction(connection):
        owner_rows.bury(connection, [owner])
        owner_rows.free_leased(connection, [owner], now)


def at_once(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """Call a function, in a program without a reactor."""
    from twisted.internet.defer import maybeDeferred

    return maybeDeferred(function, *args)
