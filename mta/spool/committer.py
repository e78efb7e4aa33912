"""Group commit: one transaction, and one sync, for all that waits.

A thread of its own writes.  All jobs that came while the last commit was under way go into the
next one, and the reactor hears once of the whole batch.  A new message waits for a moment where
others are about to come, and removals wait for a commit that something else needs: under load, one
commit serves many, and that is what its cost is made of.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import ICommitMeter
from mta.spool.batches import BatchWriter
from mta.spool.folder import Folder
from mta.spool.interfaces import IBatchWriter
from mta.spool.jobs import ICommitter, Job

GATHER_DELAY = 0.001  # seconds: less than a sync takes, which the messages that come share
STOP_TIMEOUT = 30.0  # seconds: as long as SQLite waits for a lock
_MAX_BATCH = 500  # jobs in one transaction: bounds what a rollback undoes
_NO_MEMORY_PAUSE = 0.1  # seconds: some of the memory may be free again

_Waiting = tuple[Job, "Deferred[Any]"]
_Result = tuple["Deferred[Any]", Any]


@implementer(ICommitter)
class Committer:
    """Commits the jobs of one owner, in batches, in a thread.

    It ends with `stop` alone.  If it should end otherwise, what waits and all that comes fails
    with OSError.
    """

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        folder: Folder,
        reactor: Any,
        meter: ICommitMeter | None = None,
        writer: IBatchWriter | None = None,
    ) -> None:
        """`reactor`: IReactorFromThreads and IReactorTime; `meter` hears of each commit.

        `writer`: that of the folder's own database where it is not given.
        """
        self.folder = folder
        self._reactor = reactor
        self._meter = meter
        self._writer = writer or BatchWriter(folder)
        self._jobs: SimpleQueue[_Waiting | None] = SimpleQueue()  # of the thread
        self._gathered: list[_Waiting] = []  # jobs that are not given to the thread yet
        self._removals: list[int] = []  # messages whose removal is not given to it yet
        self._removed: list[Deferred[Any]] = []  # the answers to the requests for it
        self._timer: IDelayedCall | None = None
        self._thread = threading.Thread(target=self._run, name="spool committer", daemon=True)
        self._stopped: Deferred[None] | None = None
        self._ended = False  # there is no thread any more

    def start(self, owner: int) -> None:
        """See `ICommitter.start`."""
        self._writer.open(owner)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads
            raise OSError(errno.EAGAIN, str(error)) from None

    @property
    def has_ended(self) -> bool:
        """See `ICommitter.has_ended`."""
        return self._ended

    def submit(self, job: Job) -> Deferred[Any]:
        """See `ICommitter.submit`."""
        done = self._gather(job)
        self._pass_on()
        return done

    def submit_soon(self, job: Job) -> Deferred[Any]:
        """See `ICommitter.submit_soon`."""
        done = self._gather(job)
        self._pass_on_in(GATHER_DELAY)
        return done

    async def remove(self, numbers: Collection[int], delay: float) -> None:
        """See `ICommitter.remove`."""
        self._removals += numbers
        removed: Deferred[Any] = Deferred()
        self._removed.append(removed)
        self._pass_on_in(delay)
        await removed

    def stop(self) -> Deferred[None]:
        """See `ICommitter.stop`: a disk may never answer."""
        if self._stopped is None:
            self._stopped = Deferred()
            self._stopped.addTimeout(STOP_TIMEOUT, self._reactor)
            self._stopped.addErrback(self._stuck)
            if not self._thread.is_alive():
                self._stopped.callback(None)
                return self._stopped
            self._pass_on()
            self._jobs.put(None)
        return self._stopped

    def _stuck(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        self.log.error("{path}: the last commit does not end", path=str(self.folder.path))

    def _gather(self, job: Job) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self._gathered.append((job, done))
        return done

    def _pass_on_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._reactor.callLater(seconds, self._pass_on)
        elif self._timer.getTime() > self._reactor.seconds() + seconds:
            self._timer.reset(seconds)

    def _pass_on(self) -> None:
        """Give all that was gathered to the thread."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._removed:
            waiting, self._removed = self._removed, []
            self._gather(Job(removals=self._removals)).addBoth(_answer_all, waiting)
            self._removals = []
        gathered, self._gathered = self._gathered, []
        for job in gathered:
            self._jobs.put(job)
        if self._ended:
            self._refuse_all()

    def _refuse_all(self) -> None:
        """Fail all that waits for a thread that is no more."""
        error = OSError(errno.EIO, "the thread that commits has ended", str(self.folder.path))
        with suppress(Empty):
            while True:
                waiting = self._jobs.get_nowait()
                if waiting is not None:
                    waiting[1].errback(Failure(error))
        if self._stopped is not None and not self._stopped.called:
            self._stopped.callback(None)

    def _finish(self, results: Sequence[_Result], seconds: float) -> None:
        """Answer all of a batch, in the reactor."""
        for done, result in results:
            done.callback(result)
        if seconds and self._meter is not None:
            try:
                self._meter.committed(len(results), seconds)
            except Exception:  # noqa: BLE001 - a meter that fails must not hinder commits
                self.log.failure("counting a commit failed")

    # --- in the thread -----------------------------------------------------------

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._answer(batch)
        except BaseException:  # noqa: BLE001 - outermost of the thread: else nothing tells of it
            self.log.failure("the thread that commits failed")
        finally:
            self._ended = True
            self._writer.close()
            self._call(self._refuse_all)

    def _next_batch(self) -> list[_Waiting] | None:
        """Wait for jobs, and take all that there are.

        None: it is time to stop.
        """
        first = self._jobs.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < _MAX_BATCH:
            try:
                waiting = self._jobs.get_nowait()
            except Empty:
                break
            if waiting is None:
                self._jobs.put(None)
                break
            batch.append(waiting)
        # Results come in this order, and in a transaction actions see what the others did.
        batch.sort(key=lambda waiting: waiting[0].action is not None)
        return batch

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        """Commit a batch and answer each job of it, whatever goes wrong."""
        begun = time.monotonic()
        results: Sequence[Any]
        try:
            results = self._writer.commit([job for job, _ in batch])
        except BaseException as error:  # noqa: BLE001 - whatever it is, all are waiting for it
            failure = Failure(error)
            self.log.failure("a commit failed", failure)
            results = [failure] * len(batch)
        took = time.monotonic() - begun
        failed = all(isinstance(result, Failure) for result in results)
        answers = [(done, result) for (_, done), result in zip(batch, results, strict=True)]
        self._call(self._finish, answers, 0.0 if failed else took)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        """Let the reactor call a function, later where memory is short."""
        while True:
            try:
                self._reactor.callFromThread(function, *arguments)
            except (MemoryError, OSError):
                time.sleep(_NO_MEMORY_PAUSE)
            else:
                return


def _answer_all(result: Any, waiting: Sequence[Deferred[Any]]) -> None:
    for each in waiting:
        each.callback(result)
