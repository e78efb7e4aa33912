"""Beats: commits which show that this process lives and can commit.

While they succeed our leases are ours: another process takes them only when it has seen no beat in
many looks.
"""

from __future__ import annotations

from sqlite3 import Connection
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mta.interfaces import ISpoolListener
from mta.spool import owner_rows
from mta.spool.clock import Clocks
from mta.spool.database import spare
from mta.spool.jobs import ICommitter, Job
from mta.spool.leasing import Leasing

INTERVAL = 10.0  # seconds between beats: often enough for monitoring
MAX_SURE = 300.0  # seconds after a beat: half of what other processes wait for the next
MAX_COMMIT = 30.0  # seconds of a commit before monitoring hears of it: SQLite waits so long


class Heartbeat:
    """Beats for one owner, from `start` to `stop`."""

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        committer: ICommitter,
        owner: int,
        leasing: Leasing,
        listener: ISpoolListener,
        clocks: Clocks,
        reactor: IReactorTime,
    ) -> None:
        """`owner` is registered already; `leasing` can release again after a beat."""
        self._committer = committer
        self._owner = owner
        self._leasing = leasing
        self._listener = listener
        self._clocks = clocks
        self._begun: float | None = None  # when the beat under way began, seconds since the boot
        self._last = clocks.uptime()
        self._error = ""
        self._loop = LoopingCall(self._repeat)
        self._loop.clock = reactor

    def start(self) -> None:
        """Beat from now on."""
        self._last = self._clocks.uptime()
        self._loop.start(INTERVAL, now=False)

    def stop(self) -> None:
        """Beat no more."""
        if self._loop.running:
            self._loop.stop()

    @property
    def is_sure(self) -> bool:
        """Tell whether our leases are still ours."""
        return self._clocks.uptime() - self._last < MAX_SURE

    @property
    def failure(self) -> str:
        """The reason why we can't commit, in one line; empty: we can."""
        if self._committer.has_ended:
            return "the thread that commits has ended: restart the service"
        waited = 0.0 if self._begun is None else self._clocks.uptime() - self._begun
        if waited > MAX_COMMIT:
            return f"a commit has taken {waited:.0f} s and does not end"
        return self._error

    async def beat(self) -> None:
        """Commit something.  Raises OSError."""
        begun = self._clocks.uptime()
        if self._begun is None:
            self._begun = begun
        try:
            is_known, jumped, room = await self._committer.submit(Job(action=self._act))
        except OSError as error:
            self._error = f"the spool can't be written: {error}"
            raise
        finally:
            self._begun = None
        self._error = "" if room else "little room on the disk: new mail is refused"
        self._last = begun
        self._leasing.release_again()
        self._tell(is_known=is_known, jumped=jumped)

    def _tell(self, *, is_known: bool, jumped: float) -> None:
        if not is_known:
            self.log.warn("this process stood still, and others may have taken its mail")
            self._listener.recall()
        if jumped:
            self.log.warn("the clock jumped by {seconds:.0f} s", seconds=jumped)
            self._listener.wake()

    def hurry(self) -> None:
        """Beat now, if no beat is under way."""
        if self._begun is None:
            Deferred.fromCoroutine(self._beat_on())

    def _act(self, connection: Connection) -> tuple[bool, float, bool]:
        is_known = owner_rows.beat(connection, self._owner)
        if not is_known:
            owner_rows.register(connection, self._owner)
        jumped = owner_rows.set_clock(connection, self._clocks.read())
        return is_known, jumped, self._committer.folder.has_room(spare(connection))

    def _repeat(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._beat_on())

    async def _beat_on(self) -> None:
        try:
            await self.beat()
        except OSError:
            return  # the committer has logged it, and `failure` says so
        except Exception:  # noqa: BLE001 - outermost of the loop, which must not end
            self.log.failure("a beat failed")
