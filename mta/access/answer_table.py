"""The answers of peers about mailboxes, shared by all processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
from mta.shared_tables.forms import MAX_SKEW, TableForm, TableSet, make_room
from mta.shared_tables.gathering import GatheredWork
from mta.shared_tables.interfaces import IStatements, ITableStore

KEEP_YES = DAY  # seconds
KEEP_NO = 2 * HOUR  # seconds: a new mailbox must not be refused for long
CHECK_EVERY = 100  # new answers: to count the rows takes milliseconds

TABLES = TableSet(
    "recipients",
    (
        TableForm(
            "answer",
            "peer TEXT, address TEXT, does_exist INTEGER NOT NULL, until DOUBLE PRECISION NOT NULL,"
            " PRIMARY KEY (peer, address)",
            "does_exist, until",
        ),
    ),
)


@implementer(IRecipientAnswers)
class AnswerTable:
    """The table in a store.

    `now`: seconds since the epoch.  `in_thread` runs what blocks.
    """

    log = Logger()

    def __init__(
        self, store: ITableStore, now: Callable[[], float], in_thread: Callable[..., Deferred[Any]]
    ) -> None:
        self._work = GatheredWork(store.open(TABLES), in_thread)
        self._now = now
        self._since_check = CHECK_EVERY
        self._limited = LimitedLog(self.log)

    async def find(self, peer: str, address: Mailbox) -> RecipientAnswer:
        """See `IRecipientAnswers.find`."""
        if not self._work.tables.exists:
            return RecipientAnswer.NONE
        return await self._work.do(self._finding(peer, address)).addErrback(self._failed)

    def look_up(self, peer: str, address: Mailbox) -> RecipientAnswer:
        """Do what `find` does.  Blocks.  Raises OSError."""
        if not self._work.tables.exists:
            return RecipientAnswer.NONE
        return self._work.tables.change(self._finding(peer, address))

    def keep(self, peer: str, address: Mailbox, answer: RecipientAnswer) -> None:
        """See `IRecipientAnswers.keep`."""
        if self._since_check >= CHECK_EVERY:
            self._since_check = 0
            self._do(_make_room, now=self._now())
        self._since_check += 1
        does_exist = answer is RecipientAnswer.YES
        until = self._now() + (KEEP_YES if does_exist else KEEP_NO)
        self._do(_keep, row=(peer, str(address), int(does_exist), until))

    async def forget(self, peer: str) -> None:
        """See `IRecipientAnswers.forget`."""
        if self._work.tables.exists:
            await self._do(_forget, peer=peer)

    def _finding(self, peer: str, address: Mailbox) -> Callable[[IStatements], RecipientAnswer]:
        return partial(_find, peer=peer, address=address, now=self._now())

    def _do(self, action: Callable[..., None], **values: object) -> Deferred[Any]:
        return self._work.do(partial(action, **values)).addErrback(self._failed)

    def _failed(self, failure: Failure) -> RecipientAnswer:
        """Go on whatever it was: sessions wait for the answers."""
        self._limited.warn(
            "table", "answers about mailboxes: {error}", error=failure.getErrorMessage()
        )
        return RecipientAnswer.NONE


def _make_room(statements: IStatements, now: float) -> None:
    # What does not exist is forgotten first.
    make_room(statements, "answer", "peer, address", "does_exist", now)


def _forget(statements: IStatements, peer: str) -> None:
    statements.execute("DELETE FROM answer WHERE peer = ?", (peer,))


def _keep(statements: IStatements, row: Sequence[object]) -> None:
    statements.execute(
        "INSERT INTO answer VALUES (?, ?, ?, ?) ON CONFLICT (peer, address)"
        " DO UPDATE SET does_exist = excluded.does_exist, until = excluded.until",
        row,
    )


def _find(statements: IStatements, *, peer: str, address: Mailbox, now: float) -> RecipientAnswer:
    row = statements.execute(
        "SELECT does_exist, until FROM answer WHERE peer = ? AND address = ?", (peer, str(address))
    ).fetchone()
    # One of a clock that was set back does not count for longer.
    longest = now + MAX_SKEW + (KEEP_YES if row and row[0] else KEEP_NO)
    if row is None or not now <= row[1] <= longest:
        return RecipientAnswer.NONE
    return RecipientAnswer.YES if row[0] else RecipientAnswer.NO
