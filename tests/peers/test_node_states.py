"""The status of peers on several nodes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.peers.node_states import NodeStates, PeerOnNode, PeerStatuses, joined
from mta.peers.status_files import MAX_EXCHANGES, EndedExchange, PeerStatus, PeerStatusFiles
from mta.session import LinkKind
from tests.shared_tables.stores import DatabaseStores

WELL = PeerStatus(last_exchange=100.0, sent=1, received=2, counts={"refused": 1}, round_trip=0.1)
FAILED = PeerStatus(last_error="451", error_at=50.0, failing_since=40.0, counts={"refused": 2})


class TableTests(DatabaseStores, SynchronousTestCase):
    """Two nodes on one database."""

    def setUp(self) -> None:
        super().setUp()
        self.files = [self.folder() for _ in range(2)]
        self.states = [NodeStates(self.store(), name) for name in ("one", "other")]

    def folder(self) -> PeerStatusFiles:
        """The files of a node."""
        path = Path(self.mktemp())
        path.mkdir()
        return PeerStatusFiles(path, lambda: 500.0)

    def seen(self, *alive: str) -> PeerStatuses:
        """The status as the first node shows it."""
        return PeerStatuses("one", self.files[0], self.states[0].others(), alive)

    def test_told(self) -> None:
        """What one node told, another one knows; a link stands as long as its node lives."""
        self.files[1].update("office", round_trip=0.05, obstacle="words")
        descriptor = self.files[1].mark_link("office")
        self.addCleanup(os.close, descriptor)
        since = self.files[1].link_since("office")
        self.states[1].tell(self.files[1], ["office", "branch"])
        self.states[0].tell(self.files[0], ["office"])
        [here, there] = self.seen("other").on_nodes("office")
        self.assertEqual((here.node, here.links), ("one", {}))
        self.assertEqual((there.node, there.links), ("other", {LinkKind.MAIN: since}))
        self.assertEqual(self.seen("other").link_since("office"), since)
        self.assertEqual(self.seen("other").read("office").obstacle, "words")
        links = [
            self.seen(*alive).links(["office", "branch"])["other"] for alive in (["other"], [])
        ]
        self.assertEqual(links, [1, 0])
        self.assertIsNone(self.seen("other").link_since("office", LinkKind.QUICK))
        self.assertIsNone(self.seen("one").link_since("office"))
        self.states[1].tell(self.files[1], ["branch"])
        self.assertEqual(len(self.seen().on_nodes("office")), 1)

    def test_only_news(self) -> None:
        """What did not change is not told again."""
        self.states[1].tell(self.files[1], ["office"])
        [[version]] = self.row_version()
        self.states[1].tell(self.files[1], ["office"])
        NodeStates(self.store(), "other").tell(self.files[1], ["office"])
        self.assertEqual(self.row_version(), [(version,)])
        self.files[1].update("office", round_trip=0.05)
        self.states[1].tell(self.files[1], ["office"])
        self.assertNotEqual(self.row_version(), [(version,)])

    def row_version(self) -> list[tuple[str]]:
        """The transaction that wrote each row."""
        tables = self.states[0]._tables
        return tables.change(
            lambda each: each.execute("SELECT xmin::text FROM peer_state").fetchall()
        )

    def test_of_another_version(self) -> None:
        """Values that this one does not know are left out; what is no status is an empty one."""
        self.states[1].tell(self.files[1], ["office"])
        update = "UPDATE peer_state SET state = ?"
        for text, expected in (
            ('{"status": {"sent": 3, "new": 1}, "links": {}, "more": 1}', 3),
            ('{"status": {}, "links": {"third": 1}}', 0),
            ("[]", 0),
        ):
            self.states[1]._tables.change(lambda each, text=text: each.execute(update, (text,)))
            self.assertEqual(self.states[0].others()[0].status.sent, expected)


class JoinedTests(SynchronousTestCase):
    """One status of several."""

    def joined(self, *statuses: PeerStatus, link_at: int | None = None) -> PeerStatus:
        """The status of nodes with these."""
        links = {LinkKind.MAIN: 1.0}
        return joined(
            [
                PeerOnNode(str(number), "office", status, links if number == link_at else {})
                for number, status in enumerate(statuses)
            ]
        )

    def test_one(self) -> None:
        """That of one node stays as it is."""
        self.assertIs(self.joined(FAILED), FAILED)

    def test_an_error_of_before(self) -> None:
        """What failed on one node, and went well on another one later, is over."""
        expected = replace(WELL, counts={"refused": 3})
        self.assertEqual(self.joined(WELL, FAILED), expected)
        self.assertEqual(self.joined(FAILED, WELL), expected)

    def test_a_later_error(self) -> None:
        """It is told, beside the last exchange that went well."""
        failed = replace(FAILED, error_at=150.0)
        status = self.joined(failed, WELL)
        self.assertEqual((status.last_error, status.error_at), ("451", 150.0))
        self.assertEqual((status.failing_since, status.last_exchange), (40.0, 100.0))

    def test_where_the_link_stands(self) -> None:
        """Its round trip counts, however old the link is."""
        older = PeerStatus(last_exchange=10.0, round_trip=0.5, obstacle="words")
        status = self.joined(older, WELL, link_at=0)
        self.assertEqual((status.round_trip, status.obstacle), (0.5, "words"))
        self.assertEqual((status.last_exchange, status.sent), (100.0, 1))

    def test_exchanges(self) -> None:
        """Those of all nodes, the newest first, and not too many."""
        lists = [[EndedExchange(n, 1.0) for n in range(start, 0, -2)] for start in (20, 19)]
        status = self.joined(*(PeerStatus(exchanges=each) for each in lists))
        expected = list(range(20, 20 - MAX_EXCHANGES, -1))
        self.assertEqual([each.ended for each in status.exchanges], expected)
