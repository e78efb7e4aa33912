"""Looks through everything in a spool, and says what is wrong.

The server may be up: what it does meanwhile is not taken for a fault.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mta.queued import IContent
from mta.spool import leases, owner_rows, owners, queue_id, rows
from mta.spool.database import (
    as_oserror,
    commit_lock,
    is_damage,
    open_database,
    transaction,
)
from mta.spool.folder import MIN_UNKNOWN_AGE, Folder
from mta.spool.holds import StandingHolds
from mta.spool.loading import ContentKey, load
from mta.spool.mending import mend

_BATCH_SIZE = 500  # messages read at once: bounds the memory
_LOST = "FROM {table} WHERE {column} NOT IN (SELECT id FROM message)"
_UNUSED = re.compile(r"\*\*\* in database main \*\*\*|Page \d+ is never used")
_MAX_FAULTS = 100  # lines of SQLite's own check: more say nothing new


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: where, and what.  `repaired`: it is not any more."""

    where: str
    problem: str
    repaired: bool = False


class Checker:
    """Checks the spool in a folder.  Everything blocks.  `now`: seconds since the epoch."""

    def __init__(
        self, path: Path, *, repair: bool = False, now: Callable[[], float] = time.time
    ) -> None:
        """`repair`: mend what can be mended without losing anything."""
        self._folder = Folder(path)
        self._repair = repair
        self._now = now

    def findings(self) -> Iterator[Finding]:
        """Find all that is wrong.  Raises OSError where the spool can't be read at all."""
        with closing(open_database(self._folder)) as connection, as_oserror(self._folder):
            for check in (
                self._database,
                self._messages,
                self._undated,
                self._leases,
                self._rows_without_messages,
                self._content,
                self._incoming,
                self._holds,
            ):
                try:
                    yield from check(connection)
                except sqlite3.DatabaseError as error:
                    yield Finding(self._folder.database.name, str(error))

    def _holds(self, _: sqlite3.Connection) -> Iterator[Finding]:
        """Find standing holds that can't be read: no mail is taken, then."""
        try:
            StandingHolds(self._folder).current()
        except OSError as error:
            yield Finding("holds.json", str(error))

    # --- the database

    def _database(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        """Let SQLite check its file.

        Indexes can be made again from the tables.  What pages of damaged ones were is free again
        after that.
        """
        name = self._folder.database.name
        found = _faults(connection)
        if found and self._repair:
            for _ in mend(self._folder, every=True):
                pass
            left = _faults(connection)
            if left and all(_UNUSED.fullmatch(line) for line in left):
                with commit_lock(self._folder):
                    connection.execute("VACUUM")
                left = _faults(connection)
            yield from (Finding(name, each, repaired=each not in left) for each in found)
        else:
            yield from (Finding(name, each) for each in found)

    def _messages(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        """Find messages that can't be delivered as they are."""
        query = "SELECT id FROM message WHERE id > ? ORDER BY id LIMIT ?"
        after: int | float = float("-inf")
        while ids := rows.ids(connection.execute(query, (after, _BATCH_SIZE))):
            damaged = self._damaged(connection, ids)
            # What is gone when it is looked at again was removed meanwhile, content first.
            for number, problem in self._damaged(connection, list(damaged)).items():
                yield Finding(queue_id.encode(number), problem)
            after = ids[-1]

    def _damaged(self, connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, str]:
        return load(connection, ids, self._folder, _no_content).damaged if ids else {}

    def _undated(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        """Find messages that would never be tried.

        Nothing is lost where they are tried now.
        """
        found = leases.undated(connection)
        if found and self._repair:
            with commit_lock(self._folder), transaction(connection):
                for number in found:
                    connection.execute(
                        "UPDATE message SET due = ? WHERE id = ?", (self._now(), number)
                    )
        for number, problem in found.items():
            yield Finding(queue_id.encode(number), problem, self._repair)

    def _leases(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        """Find messages leased to owners that never were."""
        having = owner_rows.owners_of_messages(connection)
        beats = owner_rows.beats(connection)
        locked = owners.known_owners(self._folder)
        for number in having:
            if number in beats or number in locked:
                continue  # it lives, or the next process takes over
            with commit_lock(self._folder), transaction(connection):
                ids = owner_rows.leased(connection, number)
                if self._repair:
                    owner_rows.free_leased(connection, number, self._now(), ())
            for each in ids:
                problem = "it is leased to a process that never was"
                yield Finding(queue_id.encode(each), problem, self._repair)

    def _rows_without_messages(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        for table, column in (("recipient", "message"), ("content", "id")):
            query = _LOST.format(table=table, column=column)
            found = rows.ids(connection.execute(f"SELECT DISTINCT {column} {query}"))
            if found and self._repair:
                with commit_lock(self._folder), transaction(connection):
                    connection.execute(f"DELETE {query}")
            for number in found:
                problem = f"there is a row in `{table}`, and no message"
                yield Finding(queue_id.encode(number), problem, self._repair)

    # --- files

    def _content(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        complete = self._folder.complete()
        for number in rows.unknown(connection, sorted(complete)):
            path = self._folder.content(number)
            if path.exists():
                yield self._unknown(path, "it belongs to no message")
        for number in rows.leftovers(connection, -1):
            path = self._folder.content(number)
            if path.exists():
                yield self._removed(path, "its message is gone")
        for path in self._folder.contents.iterdir():
            if not _is_id(path.name):
                yield Finding(self._name(path), "it is no file of the spool")

    def _incoming(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        arriving = list(self._folder.incoming_files())
        known = owners.known_owners(self._folder)
        for owner, number in arriving:
            if owner not in known:
                path = self._folder.incoming(owner, number)
                yield self._unknown(path, "the process that wrote it is gone")

    def _unknown(self, path: Path, problem: str) -> Finding:
        """A file that nothing refers to.  It is removed when it is old."""
        try:
            is_old = self._now() - path.stat().st_mtime > MIN_UNKNOWN_AGE
        except FileNotFoundError:
            is_old = True
        if is_old:
            return self._removed(path, problem)
        return Finding(self._name(path), f"{problem}; it is removed when it is an hour old")

    def _removed(self, path: Path, problem: str) -> Finding:
        if not self._repair:
            return Finding(self._name(path), problem)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            return Finding(self._name(path), f"{problem}, and can't be removed: {error.strerror}")
        return Finding(self._name(path), problem, repaired=True)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._folder.path))


def _faults(connection: sqlite3.Connection) -> list[str]:
    """The faults that SQLite's own check finds, a line each."""
    texts: list[str] = []
    try:
        for (text,) in connection.execute(f"PRAGMA integrity_check({_MAX_FAULTS})"):
            texts.append(str(text))
    except sqlite3.DatabaseError as error:  # it ends where it can't read on
        if not is_damage(error):
            raise
        texts.append(str(error))
    return [line for text in texts for line in text.splitlines() if line != "ok"]


def _is_id(name: str) -> bool:
    try:
        queue_id.decode(name)
    except ValueError:
        return False
    return True


def _no_content(key: ContentKey) -> IContent:
    """Stands for content, of which only the length is looked at."""
    return cast("IContent", None)
