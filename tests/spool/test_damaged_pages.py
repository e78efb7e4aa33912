"""Pages of the database that are overwritten: each harms what was on it, and all else goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing

from mta.mail import Mailbox
from mta.queued import Filter, Message
from mta.spool.database import PAGE, SpoolDamaged
from mta.spool.sqlite import SqliteSpool
from tests.spool.cases import envelope
from tests.spool.test_damage import DamageTestCase

AUTHORS = "written-by-{:03}-of-many"  # local parts, which stand on the pages of the list alone
MESSAGES = 240
MOST_ON_A_PAGE = 120


class PageTestCase(DamageTestCase):
    """A spool of which pages are overwritten."""

    def overwrite(self, *places: bytes) -> None:
        """Overwrite the page on which each of these octets stands last, while nothing runs."""
        octets = self.settled()
        self.overwrite_pages(*[octets.rindex(place) // PAGE for place in places])

    def settled(self) -> bytes:
        """The file, with all that was committed."""
        with closing(sqlite3.connect(self.folder.database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self.folder.database.read_bytes()

    def overwrite_pages(self, *pages: int) -> None:
        """Overwrite these pages, the first of which is 0."""
        with self.folder.database.open("r+b") as file:
            for page in pages:
                file.seek(page * PAGE)
                file.write(b"\xa5" * PAGE)

    def lease_all(self, spool: SqliteSpool) -> set[str]:
        """The ids of all that can be leased."""
        found: set[str] = set()
        while leased := {message.id for message in self.wait(spool.lease_due(100))}:
            found |= leased
        return found


class ContentTests(PageTestCase):
    """Pages with content."""

    def test_small(self) -> None:
        """A page with a few small messages keeps none of the others from being leased."""
        bodies = [b"%02d " % number * 500 for number in range(60)]
        sent = {message.id for body in bodies for message in self.due_now(1, body)}
        self.stop(self.spool)
        self.overwrite(bodies[30][:999])
        self.spool = self.process()
        leased = self.lease_all(self.spool)
        damaged = {each.id for each in self.tools().listed(Filter(state="damaged"))}
        self.assertEqual(leased | damaged, sent)
        self.assertGreater(len(leased), 50)
        self.assertTrue(damaged)
        self.commit(self.spool)
        self.assertEqual(self.wait(self.spool.lease_due(100)), [])

    def test_large(self) -> None:
        """A page of large content harms one message."""
        self.due_now(60, b"x" * 30_000)
        self.overwrite(b"x" * 8000)
        leased = self.wait(self.spool.lease_due(100))
        read = 0
        for message in leased:
            try:
                read += len(self.content(message)) == 30_000
            except OSError:
                continue
        self.assertGreaterEqual(read, 58)


class ListTests(PageTestCase):
    """Pages with the list of messages itself."""

    def setUp(self) -> None:
        super().setUp()
        self.sent = [self.sent_by(AUTHORS.format(number)) for number in range(MESSAGES)]

    def sent_by(self, author: str) -> Message:
        """A message that is leased."""
        wanted = envelope(reverse_path=Mailbox(author, "example.com"))
        return self.commit(self.spool, wanted=wanted)

    def assert_others_go_on(self, freed: Collection[str]) -> None:
        """All messages but those of a page are there, and new mail is taken and leased."""
        self.assertGreater(len(freed), MESSAGES - MOST_ON_A_PAGE)
        self.assertLess(len(freed), MESSAGES)
        self.clock.advance(1.0)
        new = self.commit(self.spool)
        self.wait(self.spool.release({new.id: 0.0}))
        self.assertEqual(self.lease_all(self.spool), {new.id})
        due = self.wait(self.spool.next_due())
        self.assertLessEqual(due or 0.0, self.now(), "what can't be read stays due")

    def test_each_page(self) -> None:
        """Whichever it is, what waits on the others is leased."""
        self.wait(self.spool.release({message.id: 0.0 for message in self.sent}))
        self.stop(self.spool)
        whole = self.folder.database.read_bytes()
        for number in (0, MESSAGES // 2, MESSAGES - 1):
            for path in self.folder.path.glob("queue.sqlite-*"):
                path.unlink()
            self.folder.database.write_bytes(whole)
            self.overwrite(AUTHORS.format(number).encode())
            self.spool = self.process()
            if number == MESSAGES - 1:  # where new mail has no place either
                self.assertGreater(len(self.lease_all(self.spool)), MESSAGES - MOST_ON_A_PAGE)
                self.clock.advance(1.0)
                self.assertRaises(SpoolDamaged, self.commit, self.spool)
            else:
                self.assert_others_go_on(self.lease_all(self.spool))
            self.stop(self.spool)

    def test_of_a_dead_process(self) -> None:
        """What it had leased on the other pages is free again, and its looks go on."""
        self.kill(self.spool)
        self.overwrite(AUTHORS.format(MESSAGES // 2).encode())
        self.spool = self.process()
        freed = self.wait(self.spool.take_over())
        leased = self.lease_all(self.spool)
        self.assertEqual(freed, len(leased))
        self.assert_others_go_on(leased)
        for _ in range(3):
            self.assertEqual(self.wait(self.spool.take_over()), 0)
