"""The spool as the person in charge sees it, with the server up or down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from mta.interfaces import ISpool
from mta.mail import Envelope
from mta.queued import Entry, Filter, IContent, IDraft, Message, Notice, SpoolFull
from mta.session import UNKNOWN_ORIGIN, Origin
from mta.smtp.header import HeaderSection
from mta.spool import leases, owner_rows, owners, queue_id, rows
from mta.spool.content import Draft, FileContent, Incoming, RowContent
from mta.spool.database import as_oserror, commit_lock, open_database, spare, transaction
from mta.spool.folder import Folder
from mta.spool.holds import StandingHolds
from mta.spool.listing import DAMAGED, Listed, Listing, numbers
from mta.spool.loading import ContentKey, load, salvage
from mta.spool.wakeup import Signal, wake_processes
from mta.sync import result_of

P = ParamSpec("P")
T = TypeVar("T")

_PORTION = 500  # messages read or changed at once
_WAKE_INTERVAL = 1.0  # seconds; a woken server may probe each host that is down
_MAX_REST = 0.5  # seconds between two portions
_ALL = -1  # as a LIMIT


class SpoolTools:
    """The spool in a folder.  Everything blocks, and raises OSError where the spool fails.

    `now`: seconds since the epoch.
    """

    def __init__(
        self, folder: Path, now: Callable[[], float] = time.time, reserve: int = 0
    ) -> None:
        """Open the spool, making it if need be.  Raises SpoolDamaged or OSError.

        `reserve`: octets of the disk that new mail leaves free.
        """
        self._folder = Folder(folder, reserve)
        self._now = now
        self._ids = queue_id.QueueIds(now)
        self._connection = open_database(self._folder)
        self._unsent: set[Signal] = set()
        self._next_wake = 0.0  # of the monotonic clock; 0: at once, always
        self._listing = Listing(folder, now)
        self.standing_holds = StandingHolds(self._folder)

    def close(self) -> None:
        """Close the spool."""
        self._listing.close()
        self._connection.close()

    def find(self, wanted: Filter) -> Iterator[Entry]:
        """The messages that fit, oldest first; their content needs no reactor."""
        for listed in self._listing.find(wanted):
            with as_oserror(self._folder):
                entry = self._entry(queue_id.decode(listed.id), listed)
            if entry is not None:
                yield entry

    def _entry(self, number: int, listed: Listed) -> Entry | None:
        """All that can be read of a listed message; None where it is gone."""
        loaded = load(self._connection, [number], self._folder, self._content)
        for message in loaded.messages:
            return Entry(message, listed.state, listed.due, listed.on_hold, listed.reason)
        if number not in loaded.damaged:
            return None
        message = salvage(self._connection, number, self._content)
        return Entry(message, DAMAGED, leases.NEVER, listed.on_hold, loaded.damaged[number])

    def listed(self, wanted: Filter) -> Iterator[Listed]:
        """The messages that fit in short, oldest first."""
        return self._listing.find(wanted)

    def count_held(self, peer: str) -> int:
        """How many messages wait for a peer."""
        with as_oserror(self._folder):
            return leases.count_held(self._connection, peer, ["."], _ALL)

    def count(self, wanted: Filter) -> int:
        """How many messages fit."""
        return self._listing.count(wanted)

    def hold(self, ids: Collection[str]) -> list[str]:
        """Keep messages until `release`; one under way is kept when its attempt ends."""
        return self._change(
            "on_hold = 1, due = 9e999",
            "NOT on_hold",
            ids,
            Signal.RECALL,
        )

    def release(self, ids: Collection[str]) -> list[str]:
        """Undo `hold`; what nobody works on is due now."""
        return self._change(
            "on_hold = 0, reason = '', deaths = 0,"
            " due = CASE WHEN owner IS NULL THEN :now ELSE due END",
            "on_hold OR owner IS NULL",
            ids,
            Signal.RETRY,
        )

    def retry(self, ids: Collection[str]) -> list[str]:
        """Make messages due now that are neither on hold nor being worked on."""
        return self._change("due = :now", "owner IS NULL AND NOT on_hold", ids, Signal.RETRY)

    def delete(self, ids: Collection[str]) -> list[str]:
        """Remove messages without a notice, even while they are worked on."""
        removed = self._execute("DELETE FROM message WHERE 1", ids)
        self._sweep()
        self._wake(Signal.RECALL)
        return removed

    def bounce(self, bounced: Sequence[tuple[Message, Notice | None]]) -> list[str]:
        """Remove messages that nobody works on, and put their notices in, in one commit.

        A message that was attempted since it was read stays: what its notice says may be wrong.
        Raises SpoolFull or OSError; then nothing is changed.
        """
        self._take_over()
        with self.inlet() as inlet:
            notices = {
                queue_id.decode(message.id): self._notice(inlet, notice)
                for message, notice in bounced
                if notice is not None
            }
            removed: set[int] = set()
            try:
                removed = self._transact(self._replace, bounced, notices)
            finally:
                for number in notices.keys() - removed:
                    notices[number][0].discard()
        self._sweep()
        self._wake(Signal.WORK)
        return [*map(queue_id.encode, sorted(removed))]

    def _replace(
        self,
        connection: Connection,
        bounced: Sequence[tuple[Message, Notice | None]],
        notices: Mapping[int, tuple[Draft, rows.Arrival]],
    ) -> set[int]:
        """Remove those that nobody touched, for their notices; returns their numbers."""
        removed = self._untouched([message for message, _ in bounced])
        rows.remove(connection, removed)
        rows.insert(connection, [notices[number][1] for number in removed & notices.keys()])
        return removed

    def _notice(self, inlet: Inlet, notice: Notice) -> tuple[Draft, rows.Arrival]:
        draft = inlet.draft()
        result_of(draft.write(notice.body))
        incoming = Incoming(draft, notice.envelope, notice.header, notice.origin)
        return draft, self._arrival(incoming)

    def _untouched(self, messages: Sequence[Message]) -> set[int]:
        """The numbers of those that nobody works on, or has worked on since they were read."""
        known = [(queue_id.decode(message.id), message.attempts) for message in messages]
        return {
            number
            for (number,) in self._connection.execute(
                "SELECT message.id FROM message"
                " JOIN json_each(?) AS known ON message.id = known.value ->> 0"
                " WHERE owner IS NULL AND attempts = known.value ->> 1",
                (json.dumps(known),),
            )
        }

    def enqueue(
        self, envelope: Envelope, pieces: Iterable[bytes], origin: Origin = UNKNOWN_ORIGIN
    ) -> str:
        """Put a message into the spool, due now; returns its queue id.

        The content comes in pieces, with CRLF line ends.  It is on stable storage when this
        returns.  Raises SpoolFull or OSError; then nothing is left behind.
        """
        with self.inlet() as inlet:
            draft, section = inlet.draft(), HeaderSection()
            try:
                for piece in pieces:
                    if body := section.feed(piece):
                        result_of(draft.write(body))
            except BaseException:
                draft.discard()
                raise
            return result_of(inlet.commit(draft, envelope, section.octets, origin)).id

    @contextmanager
    def inlet(self) -> Iterator[Inlet]:
        """A way into the spool.  Raises OSError."""
        owner = owners.register(self._folder, self._ids)
        try:
            yield Inlet(self, owner.number)
        finally:
            owner.remove()

    def draft(self, owner: int) -> Draft:
        """Somewhere for an owner to write content that arrives."""
        return Draft(self._ids.next(), self._folder, owner, _at_once)

    def insert(self, incoming: Incoming) -> Message:
        """Commit what was written, leased to nobody, and due now or on hold.

        Raises SpoolFull or OSError.
        """
        self._folder.require_room(spare(self._connection))
        arrival = self._arrival(incoming)
        with as_oserror(self._folder), commit_lock(self._folder), transaction(self._connection):
            rows.insert(self._connection, [arrival])
            # Once it is committed, it may be gone at once.
            number = arrival.number
            [message] = load(self._connection, [number], self._folder, self._content).messages
        self._wake(Signal.WORK)
        return message

    def _arrival(self, incoming: Incoming) -> rows.Arrival:
        return rows.Arrival(
            data=result_of(incoming.draft.finish()),
            header=incoming.header,
            number=incoming.draft.number,
            envelope=incoming.envelope,
            due=self._now(),
            owner=None,
            size=incoming.size,
            is_ascii=incoming.is_ascii,
            origin=incoming.origin,
            on_hold=incoming.hold or str(self.standing_holds.which(incoming.envelope) or ""),
            reason=incoming.hold,
        )

    def _content(self, key: ContentKey) -> IContent:
        if key.in_file:
            path = self._folder.content(key.number)
            read_header = partial(_at_once, self._read, rows.header, key.number)
            return FileContent(key.size, key.is_ascii, path, _at_once, read_header)
        read = partial(_at_once, self._read, rows.content, key.number)
        return RowContent(key.size, key.is_ascii, queue_id.encode(key.number), read)

    def _read(self, read: Callable[[Connection, int], T], number: int) -> T:
        with as_oserror(self._folder):
            return read(self._connection, number)

    def _change(
        self, change: str, condition: str, ids: Collection[str], signal: Signal
    ) -> list[str]:
        self._take_over()
        # Our own words.
        changed = self._execute(f"UPDATE message SET {change} WHERE ({condition})", ids)  # noqa: S608
        self._wake(signal)
        return changed

    def _execute(self, statement: str, ids: Collection[str]) -> list[str]:
        """Do something with those of the messages that it applies to; returns their ids."""
        statement += " AND id IN (SELECT value FROM json_each(:ids)) RETURNING id"

        def execute(connection: Connection, portion: Sequence[int]) -> list[int]:
            parameters = {"now": self._now(), "ids": json.dumps(portion)}
            return [number for (number,) in connection.execute(statement, parameters)]

        done: list[int] = []
        for portion in _portions(ids):
            begun = time.monotonic()
            done += self._transact(execute, portion)
            if len(portion) == _PORTION:  # more are to come: the server has its turns, too
                time.sleep(time.monotonic() - begun)
        return [*map(queue_id.encode, sorted(done))]

    def _take_over(self) -> None:
        """Free what dead owners had leased: no server may be up to do it."""
        for owner in owners.dead_owners(self._folder, ours=0):
            incoming = list(self._folder.incoming_of(owner.number))
            self._transact(owner_rows.free_leased, owner.number, self._now(), incoming)
            self._transact(owner_rows.make_released_due, owner.number, self._now(), _ALL)
            owner.remove()

    def _sweep(self) -> None:
        with as_oserror(self._folder):
            while numbers := rows.leftovers(self._connection, _PORTION):
                for number in numbers:
                    self._folder.content(number).unlink(missing_ok=True)
                self._transact(rows.forget_leftovers, numbers)

    @contextmanager
    def in_portions(self) -> Iterator[Callable[[], None]]:
        """For many changes in a row: servers hear of them now and then, and at the end.

        What it gives is to be called between portions: it leaves half of the time to others, who
        want to commit as well.
        """
        self._next_wake = began = time.monotonic()

        def rest() -> None:
            nonlocal began
            time.sleep(min(time.monotonic() - began, _MAX_REST))
            began = time.monotonic()

        try:
            yield rest
        finally:
            self._next_wake = 0.0
            self._wake()

    def _wake(self, *signals: Signal) -> None:
        """Wake the servers; in the middle of many changes, not each time."""
        self._unsent.update(signals)
        now = time.monotonic()
        if now >= self._next_wake:
            if self._next_wake:
                self._next_wake = now + _WAKE_INTERVAL
            for signal in self._unsent:
                wake_processes(self._folder, signal)
            self._unsent.clear()

    def _transact(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do all of it or nothing, where need be in the room that was set aside.

        Raises SpoolFull or OSError.
        """
        try:
            with as_oserror(self._folder), commit_lock(self._folder), transaction(self._connection):
                return work(self._connection, *args, **kwargs)
        except SpoolFull:
            if not self._folder.drop_ballast():
                raise
        return self._transact(work, *args, **kwargs)


@implementer(ISpool)
class Inlet:
    """The spool as a program fills it that has no reactor: whatever is awaited is done at once."""

    def __init__(self, tools: SpoolTools, owner: int) -> None:
        self._tools = tools
        self._owner = owner

    def draft(self) -> Draft:
        """See `ISpool.draft`."""
        return self._tools.draft(self._owner)

    async def commit(
        self, draft: IDraft, envelope: Envelope, header: bytes, origin: Origin, hold: str = ""
    ) -> Message:
        """See `ISpool.commit`; but the message is leased to nobody, and due."""
        assert isinstance(draft, Draft)
        try:
            return self._tools.insert(Incoming(draft, envelope, header, origin, hold))
        except BaseException:
            draft.discard()
            raise


def _portions(ids: Collection[str]) -> Iterator[list[int]]:
    found = numbers(ids)
    for start in range(0, len(found), _PORTION):
        yield found[start : start + _PORTION]


def _at_once(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    return maybeDeferred(function, *args)
