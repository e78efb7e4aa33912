"""The spool in PostgreSQL for programs without a reactor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from mta import __version__
from mta.mail import Envelope
from mta.queued import IDraft, Message
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
from mta.spool.postgres.wakeups import notify
from mta.spool.rows import Arrival
from mta.spool.wakeup import Signal
from mta.sync import result_of

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
        self._ids = queue_id.QueueIds(now)
        self._now = now
        self._holds = PostgresHolds(session)
        self._source = PostgresContent(session, at_once)
        self._drafts = ChunkedDrafts(folder, owner, self._source, Uploads(session, owner))

    def draft(self) -> Draft:
        """See `ISpool.draft`."""
        return self._drafts.begin(self._ids.next(), set())

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
        """A message to be inserted.

        Its body is in memory, or in chunks.  Raises SpoolFull or OSError.
        """
        hold = self._holds.which(incoming.envelope)
        return Arrival(
            data=result_of(incoming.draft.finish()),
            header=incoming.header,
            number=incoming.draft.number,
            envelope=incoming.envelope,
            due=self._now(),
            owner=None,
            size=incoming.size,
            is_ascii=incoming.is_ascii,
            origin=incoming.origin,
            on_hold=incoming.hold or (hold.reason if hold else ""),
            reason=incoming.hold,
        )


@contextmanager
def sync_spool(
    session: Session, folder: Folder, now: Callable[[], float]
) -> Iterator[PostgresSyncSpool]:
    """Be an owner with a way into the spool.  Raises OSError."""
    owner = queue_id.QueueIds(now).next()
    session.call(owner_rows.register, owner_rows.OwnerName(owner, "", __version__))
    try:
        yield PostgresSyncSpool(session, folder, owner, now)
    finally:
        session.call(_leave, owner, now())


def _leave(connection: Connection, owner: int, now: float) -> None:
    with transaction(connection):
        owner_rows.bury(connection, [owner])
        owner_rows.free_leased(connection, [owner], now)


def at_once(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """Call a function, in a program without a reactor."""
    from twisted.internet.defer import maybeDeferred

    return maybeDeferred(function, *args)
