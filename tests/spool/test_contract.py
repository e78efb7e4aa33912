"""The promises of a spool, kept by the one in files and by the one in memory."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mta.spool.sqlite import SqliteSpool
from mta.testing import MemorySpool
from tests.spool.cases import EPOCH, SpoolTestCase
from tests.spool.contract import CommitContract, LeaseContract
from tests.spool.model_contract import ModelContract
from tests.spool.peer_mail_contract import LentContract, PreviewContract, TakenContract
from tests.spool.record_contract import HeldContract, PostponeContract, RecordContract
from tests.spool.shared_contract import SharedContract, ToolContract

T = TypeVar("T")


class MemorySetting(SynchronousTestCase):
    """One process, which is all that a spool in memory has."""

    def setUp(self) -> None:
        self.clock = Clock()

    def process(self) -> MemorySpool:
        """Return a spool."""
        return MemorySpool(self.now)

    def wait(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        """Return a result, or raise it: nothing waits for anything."""
        results: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(results.append)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        result: T = results[0]
        return result

    def now(self) -> float:
        """Return seconds since the epoch."""
        return EPOCH + self.clock.seconds()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)


class SqliteSetting(SpoolTestCase):
    """A folder with processes on it."""

    def take_over(self, spool: SqliteSpool) -> None:
        """Let a process look for messages that others left."""
        self.wait(spool.take_over())

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)


class MemoryPeerMailTests(TakenContract, PreviewContract, MemorySetting):
    """Mail of peers, in memory."""


class SqlitePeerMailTests(TakenContract, LentContract, SqliteSetting):
    """Mail of peers, in files."""


class MemoryCommitTests(CommitContract, MemorySetting):
    """`ISpool` in memory."""


class MemoryLeaseTests(LeaseContract, MemorySetting):
    """`ILeases` in memory."""


class MemoryHeldTests(HeldContract, MemorySetting):
    """`IHeldLeases` in memory."""


class MemoryRecordTests(RecordContract, MemorySetting):
    """`IAttemptRecords` in memory."""


class MemoryPostponeTests(PostponeContract, MemorySetting):
    """`IAttemptRecords.postpone` in memory."""


class SqliteCommitTests(CommitContract, SqliteSetting):
    """`ISpool` in files."""


class SqliteLeaseTests(LeaseContract, SqliteSetting):
    """`ILeases` in files."""


class SqliteHeldTests(HeldContract, SqliteSetting):
    """`IHeldLeases` in files."""


class SqliteRecordTests(RecordContract, SqliteSetting):
    """`IAttemptRecords` in files."""


class SqlitePostponeTests(PostponeContract, SqliteSetting):
    """`IAttemptRecords.postpone` in files."""


class SqliteSharedTests(SharedContract, SqliteSetting):
    """Several processes on one folder."""


class SqliteModelTests(ModelContract, SqliteSetting):
    """Several processes on one folder, against a model."""


class SqliteToolTests(ToolContract, SqliteSetting):
    """The tools on a folder."""
