"""Large content on its way into the spool and out of it."""

from __future__ import annotations

import errno
import os
import tracemalloc

from mta.queued import (
    Filter,
    SpoolFull,
)
from mta.spool.content import SMALL, FileContent, MemoryContent
from mta.spool.jobs import Job
from mta.spool.sqlite import SqliteSpool
from tests.spool.cases import LARGE, SpoolTestCase, done


class LargeContentTests(SpoolTestCase):
    """Content over 256 KiB has a file of its own."""

    def test_file(self) -> None:
        """It lies under the queue id, and comes back as it was."""
        spool = self.process()
        message = self.commit(spool, LARGE)
        self.assertIsInstance(message.content, FileContent)
        self.assertEqual(self.files(), [message.id])
        self.assertEqual(self.content(message), LARGE)
        self.assertEqual(self.content(message), LARGE)
        self.assertEqual((message.content.size, message.content.is_ascii), (len(LARGE), True))

    def test_after_restart(self) -> None:
        """The next process reads the same file."""
        spool = self.process()
        self.wait(spool.release({self.commit(spool, LARGE + b"\xff").id: 0.0}))
        (message,) = self.wait(self.process().lease_due(1))
        self.assertEqual(self.content(message), LARGE + b"\xff")
        self.assertFalse(message.content.is_ascii)

    def test_limit(self) -> None:
        """Up to the limit it stays in memory."""
        spool = self.process()
        self.assertIsInstance(self.commit(spool, LARGE[:SMALL]).content, MemoryContent)
        self.assertIsInstance(self.commit(spool, LARGE[: SMALL + 1]).content, FileContent)

    def test_memory_is_bounded(self) -> None:
        """While it arrives, all but two pieces are in the file."""
        draft = self.process().draft()
        for _ in range(64):
            self.wait(draft.write(b"x" * 65536))
        (incoming,) = (self.path / "incoming").iterdir()
        self.assertGreaterEqual(incoming.stat().st_size, 64 * 65536 - 2 * (SMALL + 65536))

    def test_memory_of_tiny_pieces(self) -> None:
        """Content in pieces of two octets takes no more memory than in large ones."""
        draft = self.process().draft()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(50_000):
            self.wait(draft.write(bytes(2)))
        self.assertLess(tracemalloc.get_traced_memory()[0], 2 * 100_000)
        self.assertEqual(self.wait(draft.finish()), bytes(100_000))

    def test_pieces_are_bounded(self) -> None:
        """Readers get it in portions."""
        message = self.commit(self.process(), LARGE * 3)

        async def sizes() -> list[int]:
            return [len(piece) async for piece in message.content.pieces()]

        self.assertLessEqual(max(self.wait(sizes())), SMALL)

    def test_removed_when_settled(self) -> None:
        """The file goes with its message."""
        spool = self.process()
        self.wait(spool.settle(done(self.commit(spool, LARGE))))
        self.assertEqual(self.files(), [])

    def test_discarded(self) -> None:
        """A draft that is given up leaves nothing, also in the middle of writing."""
        spool = self.process()
        draft = spool.draft()
        for _ in range(8):
            self.wait(draft.write(LARGE))
        draft.discard()
        self.assert_no_files()

    def test_disk_full(self) -> None:
        """SpoolFull, and nothing is left."""
        spool = self.process()

        def write(descriptor: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(os, "write", write)
        self.assertRaises(SpoolFull, self.commit, spool, LARGE)
        self.assert_nothing_left(spool)

    def test_sync_fails(self) -> None:
        """OSError, and nothing is left."""
        spool = self.process()

        def fsync(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(os, "fsync", fsync)
        error = self.assertRaises(OSError, self.commit, spool, LARGE)
        self.assertEqual(error.errno, errno.EIO)
        self.assert_nothing_left(spool)

    def test_database_fails(self) -> None:
        """A file that is already in place is removed with the rest."""
        spool = self.process()
        self.wait(
            self.committers[spool].submit(Job(action=lambda c: c.execute("DROP TABLE recipient")))
        )
        self.assertRaises(OSError, self.commit, spool, LARGE)
        self.assert_no_files()
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_removed_while_it_waits(self) -> None:
        """A reader of content that is gone gets an OSError."""
        spool = self.process()
        small, large = self.commit(spool), self.commit(spool, LARGE)
        self.wait(spool.release({small.id: 0.0, large.id: 0.0}))
        messages = self.wait(spool.lease_due(2))
        self.tools().delete([small.id, large.id])
        for message in messages:
            self.assertRaises(OSError, self.content, message)

    def assert_no_files(self) -> None:
        """What is being removed by threads goes in the end."""
        while self.files():
            self.clock.make_call()

    def assert_nothing_left(self, spool: SqliteSpool) -> None:
        """No file, no row."""
        self.assert_no_files()
        self.assertEqual(list(self.tools().find(Filter())), [])
