"""The status of peers, in files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.interfaces import IPeerMeter
from mta.peers.counts import DELAY, PeerCounts
from mta.peers.status_files import EndedExchange, PeerStatus, PeerStatusFiles
from mta.peers.status_log import PeerStatusLog
from mta.session import LinkKind
from mta.testing import ImmediateThreads

ONE = {"office": {"refused": 1}}


class PeerStatusTests(SynchronousTestCase):
    """What is kept of exchanges, in files."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        self.now = 100.0
        self.files = PeerStatusFiles(self.folder, lambda: self.now)

    def test_nothing_yet(self) -> None:
        """No file: nothing is known, and no link stands."""
        self.assertEqual(self.files.read("office"), PeerStatus())
        self.assertIsNone(self.files.link_since("office"))

    def test_update(self) -> None:
        """What is not named stays."""
        self.files.update("office", last_exchange=5.0, sent=3)
        self.files.update("office", last_error="451 no")
        self.assertEqual(
            self.files.read("office"), PeerStatus(5.0, "451 no", 3, 0, 100.0, 100.0, None)
        )
        self.assertEqual(self.files.read("lab"), PeerStatus())

    def test_failures_in_a_row(self) -> None:
        """When they began stays known until all is well again."""
        self.files.update("office", last_error="451 no", next_try=101.0)
        self.now = 102.0
        self.files.update("office", last_error="451 still no")
        self.assertEqual(
            self.files.read("office"), PeerStatus(None, "451 still no", 0, 0, 102.0, 100.0, None)
        )
        self.files.update("office", last_error="", sent=1)
        self.assertEqual(self.files.read("office"), PeerStatus(sent=1))

    def test_of_another_version(self) -> None:
        """What a newer program wrote there is passed over."""
        (self.folder / "peers").mkdir()
        (self.folder / "peers" / "office.json").write_text('{"sent": 3, "moon": "full"}')
        self.assertEqual(self.files.read("office"), PeerStatus(sent=3))

    def test_a_damaged_file(self) -> None:
        """It is as good as none."""
        self.files.update("office", sent=3)
        for text in ("", "{", "[1]", '{"unknown": 1}', '{"exchanges": [1]}', '{"counts": 1}'):
            (self.folder / "peers" / "office.json").write_text(text)
            self.assertEqual(self.files.read("office"), PeerStatus())

    def test_exchanges(self) -> None:
        """The last ten are kept, newest first, and the last of all is the status."""
        for number in range(12):
            exchange = EndedExchange(100.0 + number, 1.5, number, 0, "451 no")
            self.files.end_exchange("office", exchange, sent=number)
        status = self.files.read("office")
        self.assertEqual([each.sent for each in status.exchanges], [*range(11, 1, -1)])
        self.assertEqual(status.exchanges[0], EndedExchange(111.0, 1.5, 11, 0, "451 no"))
        self.assertEqual((status.sent, status.last_error), (11, "451 no"))

    def test_of_two_processes(self) -> None:
        """What both change at once is changed by both."""
        ways = [self.files, PeerStatusFiles(self.folder)]
        threads = [
            threading.Thread(target=lambda way=way: [way.count(ONE) for _ in range(50)])
            for way in ways
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.files.read("office").counts, {"refused": 100})

    def test_counts(self) -> None:
        """They gather in memory for a second, join those in the file, and last."""
        clock = Clock()
        threads = ImmediateThreads()
        status = PeerStatusLog(self.files, threads, threads)  # type: ignore[arg-type]
        counts = PeerCounts(status, clock)
        verifyObject(IPeerMeter, counts)
        counts.answered("office", "link")
        counts.answered("office", "link")
        counts.answered("lab", "cache")
        counts.sealed("office")
        self.assertEqual(self.files.read("office").counts, {})
        clock.advance(DELAY)
        self.assertEqual(self.files.read("office").counts, {"answered_by_link": 2, "sealed": 1})
        self.assertEqual(self.files.read("lab").counts, {"answered_by_cache": 1})
        counts.passed_through("lab")
        counts.refused("lab")
        self.successResultOf(Deferred.fromCoroutine(counts.flush()))
        self.files.update("lab", last_error="451 no")
        self.assertEqual(
            self.files.read("lab").counts,
            {"answered_by_cache": 1, "passed_through": 1, "refused": 1},
        )
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_link(self) -> None:
        """It stands as long as somebody holds it."""
        first, second = self.files.mark_link("office"), self.files.mark_link("office")
        self.assertIsNotNone(self.files.link_since("office"))
        os.close(first)
        self.assertIsNotNone(self.files.link_since("office"))
        os.close(second)
        self.assertIsNone(self.files.link_since("office"))

    def test_second_link(self) -> None:
        """It is shown apart from the first, and ends no error of that."""
        threads = ImmediateThreads()
        log = PeerStatusLog(self.files, threads, threads)  # type: ignore[arg-type]
        self.files.update("office", last_error="451 no")
        with log.link("office", LinkKind.QUICK):
            self.assertIsNotNone(self.files.link_since("office", LinkKind.QUICK))
            self.assertIsNone(self.files.link_since("office"))
        self.assertIsNone(self.files.link_since("office", LinkKind.QUICK))
        self.assertEqual(self.files.read("office").last_error, "451 no")

    def test_log(self) -> None:
        """It keeps the order of changes, and a link while it stands."""
        threads = ImmediateThreads()
        log = PeerStatusLog(self.files, threads, threads)  # type: ignore[arg-type]
        with log.link("office"):
            self.assertIsNotNone(self.files.link_since("office"))
            log.note("office", sent=1)
            log.failed("office", EndedExchange(4.0, 1.0, error="451 no"))
            log.ended("office", EndedExchange(5.0, 1.0, 2, 3))
        self.successResultOf(Deferred.fromCoroutine(log.flush()))
        status = self.files.read("office")
        self.assertEqual((status.sent, status.received, status.last_exchange), (2, 3, 5.0))
        self.assertEqual([each.error for each in status.exchanges], ["", "451 no"])
        self.assertIsNone(self.files.link_since("office"))

    def test_a_folder_that_can_not_be_written(self) -> None:
        """Nobody is hindered."""
        (self.folder / "peers").write_text("a file, not a folder")
        threads = ImmediateThreads()
        log = PeerStatusLog(self.files, threads, threads)  # type: ignore[arg-type]
        with log.link("office"):
            log.note("office", sent=1)
        counts = PeerCounts(log, Clock())
        counts.refused("office")
        self.successResultOf(Deferred.fromCoroutine(counts.flush()))
        self.successResultOf(Deferred.fromCoroutine(log.flush()))
