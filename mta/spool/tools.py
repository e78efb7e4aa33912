"""The spool as the person in charge sees it, with the server up or down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import (
    Entry,
    Filter,
    IContent,
    IDraft,
    IQueueTools,
    ISpool,
    Message,
    Notice,
    SpoolFull,
)
from mta.mail import Envelope
from mta.spool import owners, queue_id, rows
from mta.spool.bell import NOW, RECALL, WORK, ring
from mta.spool.content import Draft, FileContent, RowContent
from mta.spool.database import as_oserror, open_database, spare, transaction
from mta.spool.folder import Folder

P = ParamSpec("P")
T = TypeVar("T")

_PORTION = 500  # messages read or changed at once
_ALL = -1  # as a LIMIT

# ACTIVE is what a living owner has leased; a dead one's mail only waits to be taken over.
_FIND = """
SELECT id, state, due FROM (
    SELECT id, due, local_part, domain, CASE
        WHEN owner IN (SELECT value FROM json_each(:living)) THEN 'active'
        WHEN on_hold OR NOT EXISTS (
            SELECT 1 FROM recipient WHERE message = id AND state = 'waiting'
        ) THEN 'held'
        ELSE 'waiting' END AS state
    FROM message
)
WHERE id > :after AND {} ORDER BY id LIMIT :limit
"""


@implementer(IQueueTools)
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

    def close(self) -> None:
        """Close the spool."""
        self._connection.close()

    def find(self, wanted: Filter) -> Iterator[Entry]:
        """The messages that fit, oldest first; their content needs no reactor."""
        query = _FIND.format(" AND ".join(["1", *_conditions(wanted)]))
        parameters = {**self._parameters(wanted), "limit": _PORTION}
        after = -1
        while portion := self._portion(query, {**parameters, "after": after}):
            yield from portion
            after = queue_id.decode(portion[-1].message.id)

    def count_held(self, peer: str) -> int:
        """How many messages wait for a peer."""
        with as_oserror(self._folder):
            return rows.count_held(self._connection, peer, ["."], _ALL)

    def count(self, wanted: Filter) -> int:
        """How many messages fit."""
        query = _FIND.format(" AND ".join(["1", *_conditions(wanted)]))
        with as_oserror(self._folder):
            found = self._connection.execute(
                f"SELECT count(*) FROM ({query})",  # noqa: S608 (our own words)
                {**self._parameters(wanted), "after": -1, "limit": -1},
            )
            count: int = found.fetchone()[0]
        return count

    def hold(self, ids: Collection[str]) -> list[str]:
        """Keep messages until `release`; one under way is kept when its attempt ends."""
        return self._change(
            "on_hold = 1, due = CASE WHEN owner IS NULL THEN 9e999 ELSE due END",
            "NOT on_hold",
            ids,
            RECALL,
        )

    def release(self, ids: Collection[str]) -> list[str]:
        """Undo `hold`; what nobody works on is due now."""
        return self._change(
            "on_hold = 0, due = CASE WHEN owner IS NULL THEN :now ELSE due END",
            "on_hold OR owner IS NULL",
            ids,
            NOW,
        )

    def retry(self, ids: Collection[str]) -> list[str]:
        """Make messages due now that are neither on hold nor being worked on."""
        return self._change("due = :now", "owner IS NULL AND NOT on_hold", ids, NOW)

    def delete(self, ids: Collection[str]) -> list[str]:
        """Remove messages without a notice, even while they are worked on."""
        removed = self._execute("DELETE FROM message WHERE 1", ids)
        self._sweep()
        ring(self._folder, what=RECALL)
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
        ring(self._folder)
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
        result_of(draft.write(notice.content))
        return draft, self._arrival(draft, notice.envelope)

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

    def enqueue(self, envelope: Envelope, pieces: Iterable[bytes]) -> str:
        """Put a message into the spool, due now; returns its queue id.

        The content comes in pieces, with CRLF line ends.  It is on stable storage when this
        returns.  Raises SpoolFull or OSError; then nothing is left behind.
        """
        with self.inlet() as inlet:
            draft = inlet.draft()
            try:
                for piece in pieces:
                    result_of(draft.write(piece))
            except BaseException:
                draft.discard()
                raise
            return result_of(inlet.commit(draft, envelope)).id

    @contextmanager
    def inlet(self) -> Iterator[Inlet]:
        """A way into the spool.  Raises OSError."""
        owner = owners.register(self._folder, self._ids)
        try:
            yield Inlet(self, owner.number)
        finally:
            owner.bury()

    def draft(self, owner: int) -> Draft:
        """Somewhere for an owner to write content that arrives."""
        return Draft(self._ids.next(), self._folder, owner, _at_once)

    def insert(self, draft: Draft, envelope: Envelope) -> Message:
        """Commit what was written, leased to nobody and due now.  Raises SpoolFull or OSError."""
        self._folder.require_room(spare(self._connection))
        arrival = self._arrival(draft, envelope)
        with as_oserror(self._folder), transaction(self._connection):
            rows.insert(self._connection, [arrival])
            # Once it is committed, it may be gone at once.
            [message] = rows.load(self._connection, [draft.number], self._content)
        ring(self._folder)
        return message

    def _arrival(self, draft: Draft, envelope: Envelope) -> rows.Arrival:
        return rows.Arrival(
            data=result_of(draft.finish()),
            number=draft.number,
            envelope=envelope,
            due=self._now(),
            owner=None,
            size=draft.size,
            is_ascii=draft.is_ascii,
        )

    def _parameters(self, wanted: Filter) -> dict[str, object]:
        living = json.dumps(list(owners.living(self._folder)))
        return {**_parameters(wanted, self._now()), "living": living}

    def _portion(self, query: str, parameters: Mapping[str, object]) -> list[Entry]:
        with as_oserror(self._folder):
            found = {
                queue_id.encode(number): (state, due)
                for number, state, due in self._connection.execute(query, parameters)
            }
            messages = rows.load(
                self._connection, [queue_id.decode(text) for text in found], self._content
            )
        return [Entry(message, *found[message.id]) for message in messages]

    def _content(self, key: rows.ContentKey) -> IContent:
        if key.in_file:
            path = self._folder.content(key.number)
            return FileContent(key.size, key.is_ascii, path, _at_once)
        read = partial(_at_once, self._data, key.number)
        return RowContent(key.size, key.is_ascii, queue_id.encode(key.number), read)

    def _data(self, number: int) -> bytes | None:
        with as_oserror(self._folder):
            return rows.data(self._connection, number)

    def _change(
        self, change: str, condition: str, ids: Collection[str], what: bytes = WORK
    ) -> list[str]:
        self._take_over()
        # Our own words.
        changed = self._execute(f"UPDATE message SET {change} WHERE ({condition})", ids)  # noqa: S608
        ring(self._folder, what=what)
        return changed

    def _execute(self, statement: str, ids: Collection[str]) -> list[str]:
        """Do something with those of the messages that it applies to; returns their ids."""
        statement += " AND id IN (SELECT value FROM json_each(:ids)) RETURNING id"

        def execute(connection: Connection, portion: Sequence[int]) -> list[int]:
            parameters = {"now": self._now(), "ids": json.dumps(portion)}
            return [number for (number,) in connection.execute(statement, parameters)]

        done: list[int] = []
        for portion in _portions(ids):
            done += self._transact(execute, portion)
        return [*map(queue_id.encode, sorted(done))]

    def _take_over(self) -> None:
        """Free what dead owners had leased: no server may be up to do it."""
        for owner in owners.dead(self._folder, ours=0):
            incoming = list(self._folder.incoming_of(owner.number))
            self._transact(rows.take_over, owner.number, self._now(), incoming)
            self._transact(rows.bring_back, owner.number, self._now(), _ALL)
            owner.bury()

    def _sweep(self) -> None:
        with as_oserror(self._folder):
            while numbers := rows.leftovers(self._connection, _PORTION):
                for number in numbers:
                    self._folder.content(number).unlink(missing_ok=True)
                self._transact(rows.forget_leftovers, numbers)

    def _transact(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do all of it or nothing, where need be in the room that was set aside.

        Raises SpoolFull or OSError.
        """
        try:
            with as_oserror(self._folder), transaction(self._connection):
                return work(self._connection, *args, **kwargs)
        except SpoolFull:
            if not self._folder.throw_ballast():
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

    async def commit(self, draft: IDraft, envelope: Envelope) -> Message:
        """See `ISpool.commit`; but the message is leased to nobody, and due."""
        assert isinstance(draft, Draft)
        try:
            return self._tools.insert(draft, envelope)
        except BaseException:
            draft.discard()
            raise


def _conditions(wanted: Filter) -> Iterator[str]:
    recipient = "EXISTS (SELECT 1 FROM recipient AS r WHERE r.message = id AND {})"
    if wanted.ids:
        yield "id IN (SELECT value FROM json_each(:ids))"
    if wanted.reverse_path:
        yield "lower(local_part || '@' || domain) = :reverse_path"
    if wanted.forward_path:
        is_it = "lower(r.local_part || '@' || r.domain) = :forward_path"
        yield recipient.format(f"r.state <> 'done' AND {is_it}")
    if wanted.domain:
        yield recipient.format("r.state <> 'done' AND r.domain = :domain")
    if wanted.peer:
        yield recipient.format("r.state = 'held' AND r.peer = :peer")
    if wanted.older:
        yield "id < :before"
    if wanted.state:
        yield "state = :state"


def _parameters(wanted: Filter, now: float) -> dict[str, object]:
    null = "@"  # how the columns of a null reverse-path look when they are joined
    return {
        "ids": json.dumps(_numbers(wanted.ids)),
        "reverse_path": null if wanted.reverse_path == "<>" else wanted.reverse_path.lower(),
        "forward_path": wanted.forward_path.lower(),
        "domain": wanted.domain.lower(),
        "peer": wanted.peer,
        "before": queue_id.earliest(now - wanted.older),
        "state": wanted.state,
    }


def _portions(ids: Collection[str]) -> Iterator[list[int]]:
    numbers = _numbers(ids)
    for start in range(0, len(numbers), _PORTION):
        yield numbers[start : start + _PORTION]


def _numbers(ids: Collection[str]) -> list[int]:
    """The numbers of queue ids; what is no queue id names no message."""
    numbers = []
    for text in ids:
        try:
            numbers.append(queue_id.decode(text))
        except ValueError:
            continue
    return numbers


def _at_once(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    return maybeDeferred(function, *args)


def result_of(coroutine: Coroutine[Deferred[Any], Any, T]) -> T:
    """What a coroutine returns, or raises, that waits for nothing."""
    results: list[T | Failure] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result
