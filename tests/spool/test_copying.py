"""``mta spool copy``: between a folder and a database, there and back."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from mta.mail import Mailbox
from mta.queued import Entry, Filter, HistoryEntry, Settlement, State
from mta.session import Origin
from mta.settings import Settings
from mta.spool.copying import Copy
from mta.spool.database import SpoolUnusable
from mta.spool.holds import StandingHold
from mta.spool.place import SpoolPlace
from mta.spool.tools import SpoolTools
from tests.spool.contract import ALICE, BOB, HEADER, LARGE, Contract, envelope, settlement
from tests.spool.postgres import PostgresTestCase

BROUGHT = Origin("192.0.2.1", turned_peer="relay", told_by="relay", told_id="ID1")


class CopyTests(Contract, PostgresTestCase):
    """All that a message is, and has been through, comes along."""

    def setUp(self) -> None:
        super().setUp()
        self.settings = Settings("h.example", spool=str(self.path), database=self.url)
        self.database = SpoolPlace.of(self.settings)
        self.there, self.back = self.place(), self.place()

    def place(self) -> SpoolPlace:
        """A folder that is not there."""
        return SpoolPlace.named(str(Path(self.mktemp()).absolute()), self.settings)

    def fill(self) -> None:
        """Put mail of all kinds into the database, and end its process."""
        spool, tools = self.process(), self.tools()
        tried = self.commit(spool, b"tried\xff", envelope(BOB, ALICE), origin=BROUGHT)
        entry = HistoryEntry(self.now(), "mx:example.org", "deferred", "451 4.3.0 Later")
        progress = (
            tried.progress[0].with_attempt(entry),
            replace(tried.progress[1], state=State.DONE, settled=frozenset({"x@y"})),
        )
        self.wait(
            spool.settle(Settlement(tried.id, progress, self.now() + 60, 3, True, recovered=True))
        )
        self.waiting(spool, body=LARGE)
        held = self.commit(spool, wanted=envelope(Mailbox("x", "office.example")))
        self.wait(spool.settle(settlement(held, self.now() + 900, state=State.HELD, peer="office")))
        on_hold = self.waiting(spool)
        tools.hold([on_hold.id])
        self.commit(spool, hold="it smells")
        self.database.holds().add(StandingHold(domain="example.net"))
        self.stop(spool)

    def entries(self, place: SpoolPlace) -> list[tuple[Entry, bytes]]:
        """All that is in a spool, and the content."""
        nothing: Any = None
        with closing(place.tools()) as tools:
            return [
                (
                    replace(entry, message=replace(entry.message, content=nothing)),
                    b"".join(self.pieces(entry.message)),
                )
                for entry in tools.find(Filter())
            ]

    def copy(self, source: SpoolPlace, target: SpoolPlace) -> None:
        """Copy a spool."""
        copy = Copy(source, target)
        copy.require_rest()
        self.assertEqual(sum(copy.portions()), 5)
        self.assertEqual(copy.left, [])

    def test_there_and_back(self) -> None:
        """What comes back is what was there."""
        self.fill()
        before = self.entries(self.database)
        self.assertIn(HEADER + LARGE, [content for _, content in before])
        other = replace(self.database, database=self.cluster().new_url())
        for source, target in (
            (self.database, self.there),
            (self.there, other),
            (other, self.back),
        ):
            self.copy(source, target)
            self.assertEqual(self.entries(target), before)
            holds = target.holds().current()
            self.assertEqual([each.domain for each in holds], ["example.net"])
            with closing(target.tools()) as tools:
                self.assertEqual(len(tools.taken()), 2)

    def test_what_a_dead_process_had(self) -> None:
        """It may have been delivered, and is due."""
        spool = self.process()
        message = self.commit(spool)
        self.kill(spool)
        self.sql("UPDATE owner SET alive_until = '-infinity'")
        copy = Copy(self.database, self.there)
        copy.require_rest()
        self.assertEqual(list(copy.portions()), [1])
        [(entry, _)] = self.entries(self.there)
        self.assertEqual((entry.message.id, entry.message.recovered), (message.id, True))
        self.assertEqual(entry.state, "waiting")
        self.assertLessEqual(entry.due, self.now() + 1)

    def refused(self, source: SpoolPlace, target: SpoolPlace) -> str:
        """The reason why a copy is refused."""
        with self.assertRaises(SpoolUnusable) as caught:
            Copy(source, target).require_rest()
        return str(caught.exception)

    def test_refused(self) -> None:
        """Not beside a server, not onto messages, and not from nothing."""
        spool = self.process()
        self.commit(spool)
        self.assertIn("a server works with", self.refused(self.database, self.there))
        self.assertIn("there is no spool", self.refused(self.there, self.database))
        self.assertIn("to itself", self.refused(self.database, self.database))
        self.stop(spool)
        SpoolTools(self.there.folder).close()
        self.assertIn("has messages already", self.refused(self.there, self.database))

    def test_damaged(self) -> None:
        """A damaged message stays behind, and is named."""
        spool = self.process()
        good, bad = self.waiting(spool), self.waiting(spool)
        self.stop(spool)
        self.sql("DELETE FROM recipient WHERE message = (SELECT max(message) FROM recipient)")
        copy = Copy(self.database, self.there)
        self.assertEqual(list(copy.portions()), [1])
        self.assertEqual(copy.left, [bad.id])
        self.assertEqual([each.message.id for each, _ in self.entries(self.there)], [good.id])
