"""The answers of peers about mailboxes, shared by all processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import IRecipientAnswers
from mta.limited_log import LimitedLog
from mta.mail import Mailbox
from mta.session import RecipientAnswer
from mta.settings import DAY, HOUR
from mta.shared_table import SharedTable, make_room

NAME = "recipients.sqlite"
KEEP_YES = DAY  # seconds
KEEP_NO = 2 * HOUR  # seconds: a new mailbox must not be refused for long
CHECK_EVERY = 100  # new answers: to count the rows takes milliseconds

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answer (
    peer TEXT NOT NULL,
    address TEXT NOT NULL,
    does_exist INTEGER NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (peer, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS age ON answer (does_exist, until);
"""


_Answer = RecipientAnswer
_Key = tuple[str, Mailbox]
_Row = tuple[str, str, bool, float]


@implementer(IRecipientAnswers)
class AnswerTable:
    """The table in a spool folder.

    `now`: seconds since the epoch.  `in_thread` runs what blocks.
    """

    log = Logger()

    def __init__(
        self, spool: Path, now: Callable[[], float], in_thread: Callable[..., Deferred[Any]]
    ) -> None:
        self._table = SharedTable(spool / NAME, _SCHEMA)
        self._now = now
        self._in_thread = in_thread
        self._is_working = False
        self._wanted: list[tuple[_Key, Deferred[_Answer]]] = []
        self._new: list[_Row] = []
        self._since_check = CHECK_EVERY
        self._limited = LimitedLog(self.log)

    async def find(self, peer: str, address: Mailbox) -> RecipientAnswer:
        """See `IRecipientAnswers.find`."""
        found: Deferred[RecipientAnswer] = Deferred()
        self._wanted.append(((peer, address), found))
        self._work()
        return await found

    def look_up(self, peer: str, address: Mailbox) -> RecipientAnswer:
        """Do what `find` does.  Blocks.  Raises OSError."""
        if not self._table.path.exists():
            return RecipientAnswer.NONE
        return self._table.change(partial(_find, peer=peer, address=address, now=self._now()))

    def keep(self, peer: str, address: Mailbox, answer: RecipientAnswer) -> None:
        """See `IRecipientAnswers.keep`."""
        does_exist = answer is RecipientAnswer.YES
        until = self._now() + (KEEP_YES if does_exist else KEEP_NO)
        self._new.append((peer, str(address), does_exist, until))
        self._work()

    async def forget(self, peer: str) -> None:
        """See `IRecipientAnswers.forget`."""
        if not self._table.path.exists():
            return
        delete = "DELETE FROM answer WHERE peer = ?"
        try:
            await self._in_thread(
                self._table.change, lambda connection: connection.execute(delete, (peer,))
            )
        except OSError as error:
            self._unusable(error)

    # --- what comes while the thread works goes together

    def _work(self) -> None:
        """Read and write what there is, unless the thread works."""
        if self._is_working or not (self._wanted or self._new):
            return
        self._is_working = True
        new, self._new = self._new, []
        wanted, self._wanted = self._wanted, []
        done = self._in_thread(self._keep_and_find, new, [key for key, _ in wanted])
        done.addErrback(self._failed)
        done.addCallback(self._worked, [found for _, found in wanted])

    def _keep_and_find(self, new: Sequence[_Row], wanted: Sequence[_Key]) -> Sequence[_Answer]:
        """Keep answers, and find others.  Blocks.  Raises OSError."""
        if not (new or self._table.path.exists()):
            return [RecipientAnswer.NONE for _ in wanted]
        now = self._now()
        with self._table.transaction() as connection:
            if new:
                if self._since_check >= CHECK_EVERY:
                    self._since_check = 0
                    # What does not exist is forgotten first.
                    make_room(connection, "answer", "peer, address", "does_exist", now)
                self._since_check += len(new)
                connection.executemany("REPLACE INTO answer VALUES (?, ?, ?, ?)", new)
            return [
                _find(connection, peer=peer, address=address, now=now) for peer, address in wanted
            ]

    def _failed(self, failure: Failure) -> None:
        """Go on whatever it was: sessions wait for the answers."""
        self._unusable(failure.getErrorMessage())

    def _worked(
        self, answers: Sequence[_Answer] | None, wanted: Sequence[Deferred[_Answer]]
    ) -> None:
        self._is_working = False
        self._work()
        for found, answer in zip(wanted, answers or repeat(RecipientAnswer.NONE), strict=False):
            found.callback(answer)

    def _unusable(self, error: object) -> None:
        self._limited.warn("table", "answers about mailboxes: {error}", error=str(error))


def _find(
    connection: sqlite3.Connection, *, peer: str, address: Mailbox, now: float
) -> RecipientAnswer:
    row = connection.execute(
        "SELECT does_exist, until FROM answer WHERE peer = ? AND address = ?", (peer, str(address))
    ).fetchone()
    # One of a clock that was set back does not count for longer.
    if row is None or not now <= row[1] <= now + (KEEP_YES if row[0] else KEEP_NO):
        return RecipientAnswer.NONE
    return RecipientAnswer.YES if row[0] else RecipientAnswer.NO
