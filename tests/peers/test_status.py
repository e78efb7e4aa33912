"""The status of peers, in files."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.peers.status_files import PeerStatus, PeerStatusFiles
from mta.peers.status_log import PeerStatusLog
from mta.testing import ImmediateThreads


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
        for text in ("", "{", "[1]", '{"unknown": 1}'):
            (self.folder / "peers" / "office.json").write_text(text)
            self.assertEqual(self.files.read("office"), PeerStatus())

    def test_link(self) -> None:
        """It stands as long as somebody holds it."""
        first, second = self.files.mark_link("office"), self.files.mark_link("office")
        self.assertIsNotNone(self.files.link_since("office"))
        os.close(first)
        self.assertIsNotNone(self.files.link_since("office"))
        os.close(second)
        self.assertIsNone(self.files.link_since("office"))

    def test_log(self) -> None:
        """It keeps the order of changes, and a link while it stands."""
        threads = ImmediateThreads()
        log = PeerStatusLog(self.files, threads, threads)  # type: ignore[arg-type]
        with log.link("office"):
            self.assertIsNotNone(self.files.link_since("office"))
            log.note("office", sent=1)
            log.note("office", sent=2)
        self.successResultOf(Deferred.fromCoroutine(log.flush()))
        self.assertEqual(self.files.read("office").sent, 2)
        self.assertIsNone(self.files.link_since("office"))

    def test_a_folder_that_can_not_be_written(self) -> None:
        """Nobody is hindered."""
        (self.folder / "peers").write_text("a file, not a folder")
        threads = ImmediateThreads()
        log = PeerStatusLog(self.files, threads, threads)  # type: ignore[arg-type]
        with log.link("office"):
            log.note("office", sent=1)
        self.successResultOf(Deferred.fromCoroutine(log.flush()))
