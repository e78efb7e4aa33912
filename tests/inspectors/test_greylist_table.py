"""The clients that greylisting knows, on a host and on nodes."""

from __future__ import annotations

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from mta.inspectors import greylist_table
from mta.inspectors.greylist_table import RETURN_WITHIN, GreylistTable
from mta.settings import DAY
from mta.shared_tables import forms
from mta.shared_tables.forms import MAX_SKEW
from tests.shared_tables.stores import DatabaseStores, FolderStores

DELAY, KEEP = 300.0, 36 * DAY


class GreylistContract:
    """Two processes with one store."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 1_000_000.0
        self.table, self.other = self.make(), self.make()

    def make(self) -> GreylistTable:
        """The table of one process."""
        return GreylistTable(self.store(), lambda: self.now, maybeDeferred)

    def wait(self, table: GreylistTable, name: str = "192.0.2.0/24 a.example b.example") -> float:
        """The seconds that are left."""
        return self.successResultOf(Deferred.fromCoroutine(table.wait(name, DELAY, KEEP)))

    def test_seen_by_one(self) -> None:
        """What came to one process first, and comes again to another, passes there."""
        self.assertEqual(self.wait(self.table), DELAY)
        self.now += DELAY / 2
        self.assertEqual(self.wait(self.other), DELAY / 2)
        self.now += DELAY / 2
        self.assertEqual(self.wait(self.other), 0)
        self.now += KEEP - 1
        self.assertEqual(self.wait(self.table), 0)

    def test_begins_anew(self) -> None:
        """What did not come again in time has to wait as the first time."""
        self.wait(self.table)
        self.now += DELAY + RETURN_WITHIN + 1
        self.assertEqual(self.wait(self.other), DELAY)

    def test_clock_set_back(self) -> None:
        """A client of a future that is gone passes after the delay, like a new one."""
        self.wait(self.table)
        self.now -= DAY
        self.assertEqual(self.wait(self.other), DELAY)
        self.now += DELAY
        self.assertEqual(self.wait(self.table), 0)

    def test_clock_set_back_by_little(self) -> None:
        """A client that came to a node whose clock is ahead does not begin anew."""
        self.wait(self.table)
        self.now -= MAX_SKEW
        self.assertEqual(self.wait(self.other), DELAY)
        self.now += DELAY + MAX_SKEW
        self.assertEqual(self.wait(self.other), 0)

    def test_clock_set_forward_and_back(self) -> None:
        """A client that is known stays so by a clock that is wrong for a while."""
        self.wait(self.table)
        self.now += DELAY
        for step in (0.0, DAY, -DAY, -DAY, DAY):
            self.now += step
            self.assertEqual(self.wait(self.table), 0)

    def test_bounded(self) -> None:
        """Those that never came back are forgotten before others."""
        self.patch(forms, "MAX_ROWS", 8)
        self.patch(forms, "SPARED_ROWS", 2)
        self.patch(greylist_table, "CHECK_EVERY", 1)
        self.wait(self.table, "known")
        self.now += DELAY
        self.wait(self.table, "known")
        for number in range(20):
            self.now += 1
            self.wait(self.table, str(number))
        self.assertEqual(self.wait(self.other, "known"), 0)
        self.assertEqual(self.wait(self.other, "19"), DELAY)
        self.assertEqual(self.wait(self.other, "0"), DELAY)


class GreylistInFolderTests(GreylistContract, FolderStores, SynchronousTestCase):
    """In a file."""


class GreylistInDatabaseTests(GreylistContract, DatabaseStores, SynchronousTestCase):
    """In a database that nodes share."""
