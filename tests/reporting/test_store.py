"""The store of counts."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mta.reporting import store as store_module
from mta.reporting.store import Counted, ReportStore
from tests.authentication.reports.test_message import PUBLISHED, ROWS
from tests.shared_tables.stores import DatabaseStores, FolderStores

DAY = 20784
ONE, OTHER = (row for row, _ in ROWS)


class CountsContract:
    """Two processes with one store."""

    def setUp(self) -> None:
        super().setUp()
        self.reports, self.second = ReportStore(self.store()), ReportStore(self.store())

    def test_sums(self) -> None:
        """Counts of all processes are added up; rows and policy come back as they were."""
        self.assertEqual([], self.reports.waiting(DAY + 1))
        self.assertEqual(
            0,
            self.reports.add([Counted(DAY, PUBLISHED, ONE, 2), Counted(DAY, PUBLISHED, OTHER, 1)]),
        )
        changed = replace(PUBLISHED, policy="none", rua=("mailto:x@example.com",))
        self.assertEqual(0, self.second.add([Counted(DAY, changed, ONE, 3)]))
        self.assertEqual((changed, [(ONE, 5), (OTHER, 1)]), self.reports.read(DAY, "example.com"))

    def test_days(self) -> None:
        """Each day and domain is a report of its own."""
        other = replace(PUBLISHED, domain="example.net")
        self.reports.add([Counted(DAY + n, PUBLISHED, ONE, 1) for n in range(3)])
        self.reports.add([Counted(DAY, other, ONE, 1)])
        waiting = [(DAY, "example.com"), (DAY, "example.net"), (DAY + 1, "example.com")]
        self.assertEqual(waiting, self.reports.waiting(DAY + 2))
        self.reports.remove(DAY, "example.com")
        self.assertEqual(waiting[1:], self.second.waiting(DAY + 2))
        self.assertIsNone(self.reports.read(DAY, "example.com"))
        self.assertIsNotNone(self.reports.read(DAY + 1, "example.com"))

    def test_claims(self) -> None:
        """One process has a report at a time; when it died, or failed, another takes over."""
        self.reports.add([Counted(DAY, PUBLISHED, ONE, 1)])
        self.assertTrue(self.reports.claim(DAY, "example.com", 1000.0, 60.0))
        self.assertFalse(self.second.claim(DAY, "example.com", 1030.0, 60.0))
        self.assertFalse(self.second.claim(DAY, "example.com", 970.0, 60.0))  # its clock is behind
        self.assertTrue(self.second.claim(DAY, "example.com", 1061.0, 60.0))
        self.assertTrue(self.reports.claim(DAY, "example.com", 500.0, 60.0))  # the clock was set
        self.assertFalse(self.reports.claim(DAY, "example.net", 500.0, 60.0))

    def test_bounds(self) -> None:
        """Strangers can't fill the disk: what is known goes on to be counted."""
        self.patch(store_module, "MAX_ROWS", 2)
        self.patch(store_module, "MAX_DOMAINS", 2)
        third = replace(ONE, client="192.0.2.3")
        self.reports.add([Counted(DAY, PUBLISHED, ONE, 1), Counted(DAY, PUBLISHED, OTHER, 1)])
        self.assertEqual(4, self.reports.add([Counted(DAY, PUBLISHED, third, 4)]))
        self.assertEqual(0, self.reports.add([Counted(DAY, PUBLISHED, ONE, 4)]))
        domains = [replace(PUBLISHED, domain=f"{n}.example") for n in range(3)]
        lost = [self.reports.add([Counted(DAY, each, ONE, 1)]) for each in domains]
        self.assertEqual([0, 1, 1], lost)
        self.assertEqual(0, self.reports.add([Counted(DAY + 1, domains[2], ONE, 1)]))


class CountsInFolderTests(CountsContract, FolderStores, SynchronousTestCase):
    """In a file."""


class CountsInDatabaseTests(CountsContract, DatabaseStores, SynchronousTestCase):
    """In a database that nodes share."""
