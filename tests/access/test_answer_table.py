"""The answers of peers, in a table that all processes share."""

from __future__ import annotations

from unittest.mock import patch

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.access import answer_table
from mta.access.answer_table import KEEP_NO, KEEP_YES, AnswerTable
from mta.interfaces import IRecipientAnswers
from mta.mail import Mailbox
from mta.session import RecipientAnswer
from mta.settings import DAY
from mta.shared_tables import forms
from mta.shared_tables.forms import MAX_SKEW
from tests.shared_tables.stores import DatabaseStores, FolderStores

YES, NO, LATER, NONE = RecipientAnswer
BOB, EVE = Mailbox("bob", "office.example"), Mailbox("eve", "office.example")


class AnswersContract:
    """Two processes with one store."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 1_000_000.0
        self.table, self.other = self.make(), self.make()

    def make(self) -> AnswerTable:
        """The table of one process."""
        return AnswerTable(self.store(), lambda: self.now, maybeDeferred)

    def found(self, address: Mailbox = BOB, peer: str = "office") -> RecipientAnswer:
        """What the other process finds."""
        finding = Deferred.fromCoroutine(self.other.find(peer, address))
        return self.successResultOf(finding)

    def test_interface(self) -> None:
        """It is what the check asks for."""
        verifyObject(IRecipientAnswers, self.table)

    def test_shared(self) -> None:
        """What one process keeps, all find, for that peer and address."""
        self.table.keep("office", BOB, YES)
        self.table.keep("office", EVE, NO)
        self.assertEqual([self.found(BOB), self.found(EVE)], [YES, NO])
        self.assertIs(self.found(BOB, "branch"), NONE)
        self.table.keep("office", EVE, YES)
        self.assertIs(self.found(EVE), YES)

    def test_time(self) -> None:
        """Each counts for its time, and not at all where the clock was set back."""
        start = self.now
        self.table.keep("office", BOB, YES)
        self.table.keep("office", EVE, NO)
        self.now = start + KEEP_NO + 1
        self.assertEqual([self.found(BOB), self.found(EVE)], [YES, NONE])
        self.now = start + KEEP_YES + 1
        self.assertIs(self.found(BOB), NONE)
        self.now = start - MAX_SKEW - 1
        self.assertEqual([self.found(BOB), self.found(EVE)], [NONE, NONE])

    def test_time_of_a_wrong_clock(self) -> None:
        """What was kept a day ahead does not count by the right clock, and what comes then does."""
        self.now += DAY
        self.table.keep("office", BOB, YES)
        self.table.keep("office", EVE, NO)
        self.now -= DAY
        self.assertEqual([self.found(BOB), self.found(EVE)], [NONE, NONE])
        self.table.keep("office", EVE, NO)
        self.assertIs(self.found(EVE), NO)
        self.now += KEEP_NO + 1
        self.assertIs(self.found(EVE), NONE)

    def test_clocks(self) -> None:
        """What a node keeps whose clock is ahead counts on others at once."""
        self.now += MAX_SKEW
        self.table.keep("office", EVE, NO)
        self.now -= MAX_SKEW
        self.assertIs(self.found(EVE), NO)

    def test_forgotten(self) -> None:
        """All of one peer."""
        self.table.keep("office", BOB, YES)
        self.table.keep("branch", BOB, YES)
        self.successResultOf(Deferred.fromCoroutine(self.other.forget("office")))
        self.assertEqual([self.found(), self.found(peer="branch")], [NONE, YES])

    def test_bounded(self) -> None:
        """What is over its time goes first, then what does not exist."""
        with (
            patch.object(forms, "MAX_ROWS", 4),
            patch.object(forms, "SPARED_ROWS", 2),
            patch.object(answer_table, "CHECK_EVERY", 1),
        ):
            self.table.keep("office", BOB, YES)
            for number in range(20):
                self.table.keep("office", Mailbox(f"m{number}", "office.example"), NO)
        self.assertIs(self.found(BOB), YES)
        found = [self.found(Mailbox(f"m{number}", "office.example")) for number in range(20)]
        self.assertLessEqual(found.count(NO), 4)
        self.assertIs(found[-1], NO)


class AnswersInFolderTests(AnswersContract, FolderStores, SynchronousTestCase):
    """In a file."""

    def test_empty(self) -> None:
        """There is not even a file."""
        self.assertIs(self.found(), NONE)
        self.successResultOf(Deferred.fromCoroutine(self.table.forget("office")))
        self.assertFalse(any(self.folder.iterdir()))

    def test_a_table_that_can_not_be_used(self) -> None:
        """It is logged, once a minute, and nothing is known."""
        (self.folder / "recipients.sqlite").write_bytes(b"no database" * 100)
        self.table.keep("office", BOB, YES)
        self.assertIs(self.found(), NONE)
        self.successResultOf(Deferred.fromCoroutine(self.other.forget("office")))


class AnswersInDatabaseTests(AnswersContract, DatabaseStores, SynchronousTestCase):
    """In a database that nodes share."""
