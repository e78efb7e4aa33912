"""The spool as the command line uses it, without a reactor."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from sqlite3 import Connection

from zope.interface import implementer

from mta.mail import Envelope
from mta.queued import EVERYWHERE, Entry, Filter, IDraft, Message, Notice
from mta.session import UNKNOWN_ORIGIN, Origin
from mta.spool import leases, queue_id, rows
from mta.spool.database import as_oserror
from mta.spool.folder import Folder
from mta.spool.interfaces import ITools
from mta.spool.listing import DAMAGED, Listed, Listing, portions
from mta.spool.loading import load, salvage
from mta.spool.schema import Hold
from mta.spool.sync_spool import SyncSpool, blocking_source, enqueued, notice_of, sync_spool
from mta.spool.taken import remembered
from mta.spool.tool_commits import ToolCommits
from mta.spool.wakeup import Signal

_BATCH_SIZE = 500  # messages changed in one commit: others want to commit, too
_ALL = -1  # as a LIMIT


@implementer(ITools)
class SpoolTools:
    """The spool in a folder.  Everything blocks, and raises OSError where the spool fails.

    `now`: seconds since the epoch.
    """

    def __init__(
        self, folder: Path, now: Callable[[], float] = time.time, reserve: int = 0
    ) -> None:
        """Open the spool, making it if need be.  Raises SpoolUnusable or OSError.

        `reserve`: octets of the disk that new mail leaves free.
        """
        self._folder = Folder(folder, reserve)
        self._now = now
        self._commits = ToolCommits(self._folder, now)
        self._connection = self._commits.connection
        self._source = blocking_source(self._commits)
        self._listing = Listing(folder, now)

    def now(self) -> float:
        """See `ISpoolTime.now`."""
        return self._now()

    def close(self) -> None:
        """Close the spool."""
        self._listing.close()
        self._commits.close()

    # --- looking -----------------------------------------------------------------------

    def listed(self, wanted: Filter) -> Iterator[Listed]:
        """The messages that fit in short, oldest first."""
        return self._listing.find(wanted)

    def find(self, wanted: Filter) -> Iterator[Entry]:
        """The messages that fit, oldest first; their content needs no reactor."""
        for listed in self._listing.find(wanted):
            with as_oserror(self._folder):
                entry = self._entry(queue_id.decode(listed.id), listed)
            if entry is not None:
                yield entry

    def _entry(self, number: int, listed: Listed) -> Entry | None:
        """All that can be read of a listed message; None: it's gone."""
        loaded = load(self._connection, [number], self._folder, self._source.content)
        for message in loaded.messages:
            return Entry(message, listed.state, listed.due, listed.on_hold, listed.reason)
        if number not in loaded.damaged:
            return None
        message = salvage(self._connection, number, self._source.content)
        return Entry(message, DAMAGED, leases.NEVER, listed.on_hold, loaded.damaged[number])

    def count(self, wanted: Filter) -> int:
        """Count the messages that fit."""
        return self._listing.count(wanted)

    def count_held(self, peer: str) -> int:
        """Count the messages that wait for a peer."""
        with as_oserror(self._folder):
            return leases.count_held(self._connection, peer, [EVERYWHERE], _ALL)

    # --- changing ----------------------------------------------------------------------

    def in_portions(self) -> AbstractContextManager[Callable[[], None]]:
        """See `ToolCommits.in_portions`."""
        return self._commits.in_portions()

    def hold(self, ids: Collection[str]) -> list[str]:
        """Put messages on hold until `release`; returns which were changed.

        One under way is on hold when its attempt ends.
        """
        return self._change(
            f"on_hold = {Hold.BY_HAND:d}, due = 9e999", "NOT on_hold", ids, Signal.RECALL
        )

    def release(self, ids: Collection[str]) -> list[str]:
        """Undo `hold`, and make free messages due now; returns which were changed."""
        return self._change(
            "on_hold = 0, reason = '', deaths = 0,"
            " due = CASE WHEN owner IS NULL THEN :now ELSE due END",
            "on_hold OR owner IS NULL",
            ids,
            Signal.RETRY,
        )

    def retry(self, ids: Collection[str]) -> list[str]:
        """Make free messages due now that are not on hold; returns which."""
        return self._change("due = :now", "owner IS NULL AND NOT on_hold", ids, Signal.RETRY)

    def delete(self, ids: Collection[str]) -> list[str]:
        """Remove messages without a notice, leased ones, too; returns which."""
        removed = self._execute("DELETE FROM message WHERE 1", ids)
        self._commits.sweep()
        self._commits.wake(Signal.RECALL)
        return removed

    def _change(
        self, change: str, condition: str, ids: Collection[str], signal: Signal
    ) -> list[str]:
        self._commits.take_over()
        # Our own words.
        changed = self._execute(f"UPDATE message SET {change} WHERE ({condition})", ids)  # noqa: S608
        self._commits.wake(signal)
        return changed

    def _execute(self, statement: str, ids: Collection[str]) -> list[str]:
        """Change those of the messages that it applies to; returns their ids."""
        statement += " AND id IN (SELECT value FROM json_each(:ids)) RETURNING id"

        def execute(connection: Connection, portion: Sequence[int]) -> list[int]:
            parameters = {"now": self._now(), "ids": json.dumps(portion)}
            return rows.ids(connection.execute(statement, parameters))

        done: list[int] = []
        for portion in portions(ids, _BATCH_SIZE):
            begun = time.monotonic()
            done += self._commits.commit_anyway(execute, portion)
            if len(portion) == _BATCH_SIZE:  # more are to come: the server wants to commit, too
                time.sleep(time.monotonic() - begun)
        return [*map(queue_id.encode, sorted(done))]

    # --- new messages ------------------------------------------------------------------

    def sync_spool(self) -> AbstractContextManager[SyncSpool]:
        """Be an owner with a way into the spool.  Raises OSError."""
        return sync_spool(self._commits)

    def enqueue(
        self, envelope: Envelope, pieces: Iterable[bytes], origin: Origin = UNKNOWN_ORIGIN
    ) -> str:
        """Put a message into the spool, due now; returns its queue id.

        The content comes in pieces, with CRLF line ends.  It is on stable storage when this
        returns.  Raises SpoolFull or OSError; then nothing is left behind.
        """
        with self.sync_spool() as spool:
            return enqueued(spool, envelope, pieces, origin)

    def taken(self) -> Collection[tuple[str, int]]:
        """See `ITools.taken`."""
        with as_oserror(self._folder):
            return remembered(self._connection)

    def bounce(self, bounced: Sequence[tuple[Message, Notice | None]]) -> list[str]:
        """Replace free messages by their notices, in one commit; returns which.

        A message that was attempted since it was read stays: what its notice says may be wrong.
        Raises SpoolFull or OSError; then nothing is changed.
        """
        self._commits.take_over()
        with self.sync_spool() as spool:
            notices = {
                queue_id.decode(message.id): notice_of(spool, notice)
                for message, notice in bounced
                if notice is not None
            }
            removed: set[int] = set()
            try:
                removed = self._commits.commit_anyway(_replace, bounced, notices)
            finally:
                for number in notices.keys() - removed:
                    notices[number][0].discard()
        self._commits.sweep()
        self._commits.wake(Signal.WORK)
        return [*map(queue_id.encode, sorted(removed))]


def _replace(
    connection: Connection,
    bounced: Sequence[tuple[Message, Notice | None]],
    notices: Mapping[int, tuple[IDraft, rows.Arrival]],
) -> set[int]:
    """Remove untouched messages, and insert their notices; returns their numbers."""
    removed = _untouched(connection, [message for message, _ in bounced])
    rows.remove(connection, removed)
    rows.insert(connection, [notices[number][1] for number in removed & notices.keys()])
    return removed


def _untouched(connection: Connection, messages: Sequence[Message]) -> set[int]:
    """The numbers of free messages that were not attempted meanwhile."""
    known = [(queue_id.decode(message.id), message.attempts) for message in messages]
    found = connection.execute(
        "SELECT message.id FROM message"
        " JOIN json_each(?) AS known ON message.id = known.value ->> 0"
        " WHERE owner IS NULL AND attempts = known.value ->> 1",
        (json.dumps(known),),
    )
    return set(rows.ids(found))
