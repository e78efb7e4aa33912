"""The store of counts."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.reporting import store as store_module
from mta.reporting.store import NAME, Counted, ReportStore
from tests.authentication.reports.test_message import PUBLISHED, ROWS

DAY = 20784
ONE, OTHER = (row for row, _ in ROWS)


class StoreTests(SynchronousTestCase):
    """Two processes with one spool."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.store, self.second = ReportStore(self.folder), ReportStore(self.folder)

    def test_sums(self) -> None:
        """Counts of all processes are added up; rows and policy come back as they were."""
        self.assertEqual([], self.store.waiting(DAY + 1))
        self.assertEqual(
            0, self.store.add([Counted(DAY, PUBLISHED, ONE, 2), Counted(DAY, PUBLISHED, OTHER, 1)])
        )
        changed = replace(PUBLISHED, policy="none", rua=("mailto:x@example.com",))
        self.assertEqual(0, self.second.add([Counted(DAY, changed, ONE, 3)]))
        self.assertEqual((changed, [(ONE, 5), (OTHER, 1)]), self.store.read(DAY, "example.com"))
        mode = (self.folder / NAME).stat().st_mode
        self.assertEqual(0o600, stat.S_IMODE(mode))

    def test_days(self) -> None:
        """Each day and domain is a report of its own."""
        other = replace(PUBLISHED, domain="example.net")
        self.store.add([Counted(DAY + n, PUBLISHED, ONE, 1) for n in range(3)])
        self.store.add([Counted(DAY, other, ONE, 1)])
        waiting = [(DAY, "example.com"), (DAY, "example.net"), (DAY + 1, "example.com")]
        self.assertEqual(waiting, self.store.waiting(DAY + 2))
        self.store.remove(DAY, "example.com")
        self.assertEqual(waiting[1:], self.second.waiting(DAY + 2))
        self.assertIsNone(self.store.read(DAY, "example.com"))
        self.assertIsNotNone(self.store.read(DAY + 1, "example.com"))

    def test_claims(self) -> None:
        """One process has a report at a time; when it died, or failed, another takes over."""
        self.store.add([Counted(DAY, PUBLISHED, ONE, 1)])
        self.assertTrue(self.store.claim(DAY, "example.com", 1000.0, 60.0))
        self.assertFalse(self.second.claim(DAY, "example.com", 1030.0, 60.0))
        self.assertTrue(self.second.claim(DAY, "example.com", 1061.0, 60.0))
        self.assertTrue(self.store.claim(DAY, "example.com", 500.0, 60.0))  # the clock was set
        self.assertFalse(self.store.claim(DAY, "example.net", 500.0, 60.0))

    def test_bounds(self) -> None:
        """Strangers can't fill the disk: what is known goes on to be counted."""
        self.patch(store_module, "MAX_ROWS", 2)
        self.patch(store_module, "MAX_DOMAINS", 2)
        third = replace(ONE, client="192.0.2.3")
        self.store.add([Counted(DAY, PUBLISHED, ONE, 1), Counted(DAY, PUBLISHED, OTHER, 1)])
        self.assertEqual(4, self.store.add([Counted(DAY, PUBLISHED, third, 4)]))
        self.assertEqual(0, self.store.add([Counted(DAY, PUBLISHED, ONE, 4)]))
        domains = [replace(PUBLISHED, domain=f"{n}.example") for n in range(3)]
        lost = [self.store.add([Counted(DAY, each, ONE, 1)]) for each in domains]
        self.assertEqual([0, 1, 1], lost)
        self.assertEqual(0, self.store.add([Counted(DAY + 1, domains[2], ONE, 1)]))
