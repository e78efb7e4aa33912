"""The spool for programs without a reactor: each coroutine ends at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from mta.mail import Envelope
from mta.queued import Entry, IDraft, Message, Notice
from mta.session import Origin
from mta.smtp.header import HeaderSection
from mta.spool import owners, queue_id, rows
from mta.spool.content import ContentSource
from mta.spool.database import spare
from mta.spool.drafts import Draft, Incoming
from mta.spool.holds import StandingHolds
from mta.spool.interfaces import IStandingHolds, IToolSpool
from mta.spool.loading import load
from mta.spool.read_connection import ReadConnection
from mta.spool.restoring import Restored, restored
from mta.spool.taken import restore_taken
from mta.spool.tool_commits import ToolCommits
from mta.spool.wakeup import Signal
from mta.sync import result_of

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@implementer(IToolSpool)
class SyncSpool:
    """A way into the spool.  Messages are due, and not leased."""

    def __init__(self, commits: ToolCommits, owner: int) -> None:
        self._commits = commits
        self._owner = owner
        self._ids = queue_id.QueueIds(commits.now)
        self._holds = StandingHolds(commits.folder)
        self._source = blocking_source(commits)

    def draft(self) -> Draft:
        """See `ISpool.draft`."""
        return self._draft(self._ids.next())

    def _draft(self, number: int) -> Draft:
        return Draft(number, self._commits.folder, self._owner, _at_once, set())

    async def commit(
        self, draft: IDraft, envelope: Envelope, header: bytes, origin: Origin, hold: str = ""
    ) -> Message:
        """See `ISpool.commit`; but the message is not leased, and due."""
        assert isinstance(draft, Draft)
        try:
            self._commits.folder.require_room(spare(self._commits.connection))
            arrival = self.arrival(Incoming(draft, envelope, header, origin, hold))
            message = self._commits.commit(self._insert, arrival)
        except BaseException:
            draft.discard()
            raise
        self._commits.wake(Signal.WORK)
        return message

    def _insert(self, connection: Connection, arrival: rows.Arrival) -> Message:
        rows.insert(connection, [arrival])
        # Once it is committed, it may be gone at once.
        [message] = load(
            connection, [arrival.number], self._commits.folder, self._source.content
        ).messages
        return message

    def restore(self, entries: Sequence[Entry]) -> None:
        """See `IToolSpool.restore`."""
        drafts = [self._draft(queue_id.decode(entry.message.id)) for entry in entries]
        try:
            self._commits.folder.require_room(spare(self._commits.connection))
            found = [
                restored(self, draft, entry, self._owner)
                for draft, entry in zip(drafts, entries, strict=True)
            ]
            self._commits.commit(self._restore, found)
        except BaseException:
            for draft in drafts:
                draft.discard()
            raise

    def _restore(self, connection: Connection, found: Sequence[Restored]) -> None:
        rows.insert(connection, [each.arrival for each in found])
        rows.update(connection, self._owner, [each.settlement for each in found])
        held = [(each.hold, each.arrival.number) for each in found if each.hold is not None]
        connection.executemany(
            "UPDATE message SET on_hold = 1, due = 9e999, reason = ? WHERE id = ?", held
        )

    def restore_taken(self, taken: Collection[tuple[str, int]]) -> None:
        """See `IToolSpool.restore_taken`."""
        self._commits.commit(restore_taken, taken)

    def arrival(self, incoming: Incoming) -> rows.Arrival:
        """See `IToolSpool.arrival`."""
        return due_arrival(incoming, self._holds, self._commits.now())


def due_arrival(incoming: Incoming, holds: IStandingHolds, now: float) -> rows.Arrival:
    """A message to be inserted, due at `now`.

    Its body is in memory, or durable.  Raises SpoolFull or OSError.
    """
    hold = holds.which(incoming.envelope)
    return rows.Arrival(
        data=result_of(incoming.draft.finish()),
        header=incoming.header,
        number=incoming.draft.number,
        envelope=incoming.envelope,
        due=now,
        owner=None,
        size=incoming.size,
        is_ascii=incoming.is_ascii,
        origin=incoming.origin,
        on_hold=incoming.hold or (hold.reason if hold else ""),
        reason=incoming.hold,
    )


def enqueued(spool: IToolSpool, envelope: Envelope, pieces: Iterable[bytes], origin: Origin) -> str:
    """Put a message into the spool, due now; returns its queue id.

    The content comes in pieces, with CRLF line ends.  It is on stable storage when this
    returns.  Raises SpoolFull or OSError; then nothing is left behind.
    """
    draft, section = spool.draft(), HeaderSection()
    try:
        for piece in pieces:
            if body := section.feed(piece):
                result_of(draft.write(body))
    except BaseException:
        draft.discard()
        raise
    return result_of(spool.commit(draft, envelope, section.octets, origin)).id


def notice_of(spool: IToolSpool, notice: Notice) -> tuple[IDraft, rows.Arrival]:
    """A notice to be inserted, and its draft.  Raises SpoolFull or OSError."""
    draft = spool.draft()
    assert isinstance(draft, Draft)
    result_of(draft.write(notice.body))
    return draft, spool.arrival(Incoming(draft, notice.envelope, notice.header, notice.origin))


@contextmanager
def sync_spool(commits: ToolCommits) -> Iterator[SyncSpool]:
    """Be an owner with a way into the spool.  Raises OSError."""
    owner = owners.register(commits.folder, queue_id.QueueIds(commits.now))
    try:
        yield SyncSpool(commits, owner.number)
    finally:
        owner.remove()


def blocking_source(commits: ToolCommits) -> ContentSource:
    """The content in a spool, read at once."""
    reader = ReadConnection(commits.folder, connection=commits.connection)
    return ContentSource(commits.folder, reader, _at_once)


def _at_once(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    # For large bodies alone: most commands begin without Twisted.
    from twisted.internet.defer import maybeDeferred

    return maybeDeferred(function, *args)
