"""The spool as the command line sees it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import SkipTest

from mta.mail import Envelope
from mta.queued import (
    Filter,
    Message,
)
from mta.spool import tools
from tests.spool.cases import HEADER, LARGE, SpoolTestCase, envelope, settlement


class ToolTests(SpoolTestCase):
    """The spool as the person in charge sees it."""

    def setUp(self) -> None:
        super().setUp()
        self.spool = self.process()
        self.postmaster = self.tools()

    def waiting(self, wanted: Envelope | None = None) -> Message:
        """A message that is due in an hour."""
        message = self.commit(self.spool, wanted=wanted)
        self.wait(self.spool.settle(settlement(message, self.now() + 3600)))
        return message

    def found(self, **parts: Any) -> list[str]:
        """The ids of the messages that fit."""
        return [entry.message.id for entry in self.postmaster.find(Filter(**parts))]

    def test_portions(self) -> None:
        """A long queue is read and changed in portions."""
        self.patch(tools, "_BATCH_SIZE", 2)
        messages = [self.waiting().id for _ in range(5)]
        self.assertEqual(self.found(), messages)
        self.assertEqual(len(self.postmaster.retry(messages)), 5)
        self.assertEqual(len(self.postmaster.delete(messages)), 5)
        self.assertEqual(self.found(), [])

    def test_delete(self) -> None:
        """The message is gone with its file; its attempt ends without a trace."""
        message = self.commit(self.spool, LARGE)
        self.assertEqual(len(self.postmaster.delete([message.id, message.id[::-1]])), 1)
        self.assertEqual(self.files(), [])
        self.wait(self.spool.settle(settlement(message, self.now())))
        self.assertEqual(self.found(), [])

    def test_enqueue(self) -> None:
        """A message put in by hand is due now, for any process."""
        for content in (b"small", HEADER + LARGE + b"\xff"):
            name = self.postmaster.enqueue(envelope(), [content[:3], content[3:]])
            (message,) = self.wait(self.spool.lease_due(2))
            self.assertEqual((message.id, message.recovered), (name, False))
            self.assertEqual(self.content(message), content)
            self.assertEqual(message.content.is_ascii, content.isascii())
        self.assertEqual(len(list((self.path / "owners").glob("*.lock"))), 1)
        self.assertEqual(self.files(), [name])

    def test_root(self) -> None:
        """A tool that runs as root leaves no file that the server can't use."""
        if os.geteuid():
            raise SkipTest("only root can give files away")
        self.path = Path(self.mktemp())
        self.path.mkdir(parents=True)
        os.chown(self.path, 1234, 1235)
        name = self.tools().enqueue(envelope(), [HEADER, LARGE])
        self.assertEqual(self.files(), [name])
        for path in self.path.rglob("*"):
            self.assertEqual((path.stat().st_uid, path.stat().st_gid), (1234, 1235), path)

    def test_enqueue_fails(self) -> None:
        """Nothing is left of a message that didn't fit."""

        def pieces() -> Iterable[bytes]:
            yield LARGE
            raise OSError(errno.EIO, "Input/output error")

        self.assertRaises(OSError, self.postmaster.enqueue, envelope(), pieces())
        self.assertEqual((self.found(), self.files()), ([], []))
