"""A folder with processes on it, and other things that tests of the spool share."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mta.interfaces import ICommitMeter, ISpoolListener
from mta.mail import Envelope, Mailbox, Recipient
from mta.queued import (
    Message,
    Settlement,
    State,
)
from mta.session import UNKNOWN_ORIGIN
from mta.spool import owners, queue_id
from mta.spool.committer import Committer
from mta.spool.content import SMALL
from mta.spool.folder import Folder
from mta.spool.jobs import Job
from mta.spool.sqlite import SqliteSpool
from mta.spool.tools import SpoolTools
from mta.testing import ThreadClock
from mta.testing.threads import DEADLINE

EPOCH = 1_700_000_000.0  # seconds: when the tests begin

ALICE = Mailbox("alice", "example.com")
BOB = Mailbox("bob", "example.org")
HEADER = b"Subject: x\r\n\r\n"
LARGE = b"0123456789abcde\n" * (SMALL // 16) + b"and more"


def envelope(*forward_paths: Mailbox, reverse_path: Mailbox = ALICE) -> Envelope:
    """From Alice to the mailboxes, or to Bob."""
    return Envelope(reverse_path, tuple(map(Recipient, forward_paths or (BOB,))))


def settlement(message: Message, due: float, **changes: Any) -> Settlement:
    """One attempt, after which every recipient is changed so."""
    progress = tuple(
        replace(entry, **{"domain": entry.recipient.forward_path.domain, **changes})
        for entry in message.progress
    )
    return Settlement(message.id, progress, due, message.attempts + 1, message.warned)


def done(message: Message) -> Settlement:
    """One attempt, after which nothing is left to do."""
    return settlement(message, 0.0, state=State.DONE)


@implementer(ISpoolListener)
class Listener:
    """Remembers what a process heard of its spool."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def wake(self) -> None:
        """See `ISpoolListener.wake`."""
        self.heard.append("wake")

    def retry(self) -> None:
        """See `ISpoolListener.retry`."""
        self.heard.append("retry")

    def recall(self) -> None:
        """See `ISpoolListener.recall`."""
        self.heard.append("recall")

    def reload(self) -> None:
        """See `ISpoolListener.reload`."""
        self.heard.append("reload")


@implementer(ICommitMeter)
class CommitMeter:
    """Remembers how many jobs each commit had."""

    def __init__(self) -> None:
        self.counted: list[int] = []

    def committed(self, jobs: int, seconds: float) -> None:
        """See `ICommitMeter.committed`."""
        self.counted.append(jobs)


def tell_processes_apart(case: SynchronousTestCase) -> None:
    """Give each process in a test other queue ids, though the clock stands still.

    They are apart by chance else, and by the microsecond.
    """
    numbers = itertools.count()
    case.patch(queue_id.secrets, "randbits", lambda bits: next(numbers) % 2**bits)


class SpoolTestCase(SynchronousTestCase):
    """A folder, and processes on it: each `SqliteSpool` has locks of its own."""

    def setUp(self) -> None:
        tell_processes_apart(self)
        self.clock = ThreadClock()
        self.path = Path(self.mktemp())
        self.folder = Folder(self.path)
        self.pool = ThreadPool(1, 4)
        self.pool.start()
        self.addCleanup(self.pool.stop)
        self.wait = self.clock.wait
        self.committers: dict[SqliteSpool, Committer] = {}
        self.listeners: dict[SqliteSpool, Listener] = {}
        self.ended: set[SqliteSpool] = set()

    def now(self) -> float:
        """Seconds since the epoch."""
        return EPOCH + self.clock.seconds()

    def process(self) -> SqliteSpool:
        """A process on the spool, stopped at the end if it was not before."""
        spool = self.restartable()
        self.addCleanup(lambda: spool in self.ended or self.stop(spool))
        return spool

    def stop(self, spool: SqliteSpool) -> None:
        """End a process in an orderly way."""
        self.ended.add(spool)
        self.wait(spool.stop())

    def restartable(self, meter: ICommitMeter | None = None, **more: Any) -> SqliteSpool:
        """A process that the test stops itself."""
        committer = Committer(self.folder, self.clock, meter)
        listener = Listener()
        spool = SqliteSpool(
            self.path,
            self.clock,
            self.pool,
            listener,
            now=self.now,
            committer=committer,
            **more,
        )
        spool.start()
        self.committers[spool] = committer
        self.listeners[spool] = listener
        return spool

    def kill(self, spool: SqliteSpool) -> None:
        """End a process as a signal does: its lock is gone, and the spool is not touched."""
        spool._owner.close()
        spool._heartbeat.stop()
        if spool._maturing.active():
            spool._maturing.cancel()
        spool._pipe.close()
        self.wait(self.committers[spool].stop())
        spool._attempts.close()
        spool._reading.close()
        self.ended.add(spool)

    def owner(self, spool: SqliteSpool) -> owners.Owner:
        """The owner that a process is."""
        return spool._owner

    def heard(self, spool: SqliteSpool) -> list[str]:
        """What a process heard since this was asked last."""
        listener = self.listeners[spool]
        heard, listener.heard = listener.heard, []
        return heard

    def tools(self) -> SpoolTools:
        """The tools on the spool, closed at the end."""
        opened = SpoolTools(self.path, self.now)
        self.addCleanup(opened.close)
        return opened

    def commit(
        self, spool: SqliteSpool, content: bytes = b"content", wanted: Envelope | None = None
    ) -> Message:
        """Commit a message that arrives in pieces."""
        draft = spool.draft()
        for start in range(0, len(content), 65536):
            self.wait(draft.write(content[start : start + 65536]))
        return self.wait(spool.commit(draft, wanted or envelope(), b"", UNKNOWN_ORIGIN))

    def halves(self, message: Message) -> tuple[bytes, bytes]:
        """The header section, and the body."""

        async def read() -> tuple[bytes, bytes]:
            body = b"".join([piece async for piece in message.content.body()])
            return await message.content.header(), body

        return self.wait(read())

    def content(self, message: Message) -> bytes:
        """The whole content."""

        async def read() -> bytes:
            return b"".join([piece async for piece in message.content.pieces()])

        return self.wait(read())

    def files(self) -> list[str]:
        """What lies in the folders for large content."""
        return sorted(
            path.name
            for folder in ("content", "incoming")
            for path in (self.path / folder).iterdir()
        )

    def block(self, spool: SqliteSpool) -> threading.Event:
        """Keep the committer busy until the event is set."""
        busy, free = threading.Event(), threading.Event()

        def action(_: sqlite3.Connection) -> None:
            busy.set()
            free.wait(DEADLINE)

        self.committers[spool].submit(Job(action=action))
        self.assertTrue(busy.wait(DEADLINE))
        self.addCleanup(free.set)
        return free


def failing(error: BaseException) -> Callable[..., Any]:
    """A function that raises."""

    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def of_sqlite(name: str) -> sqlite3.OperationalError:
    """An error as the sqlite3 module raises it."""
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error


class Once:
    """Stands for a function, and raises the first time that it is called."""

    def __init__(self, real: Callable[..., Any], error: BaseException) -> None:
        self.calls = 0
        self._real = real
        self._error = error

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Raise, or do what is asked."""
        self.calls += 1
        if self.calls == 1:
            raise self._error
        return self._real(*arguments, **named)
