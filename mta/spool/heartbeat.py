"""Beats: commits which show that this process lives and can commit.

While they succeed our leases are ours: another process takes them only when it has seen no beat in
many looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mta.interfaces import ISpoolListener
from mta.spool.clock import TOLERANCE, Clocks
from mta.spool.jobs import ICommitter, Job
from mta.spool.leasing import Leasing

INTERVAL = 10.0  # seconds between beats: often enough for monitoring
MAX_SURE = 300.0  # seconds after a beat: half of what other processes wait for the next
MAX_COMMIT = 30.0  # seconds of a commit before monitoring hears of it: SQLite waits so long


@dataclass(frozen=True, slots=True)
class Pulse:
    """The result of a beat.

    `is_known`: no other process believed us dead.  `jumped`: seconds by which the clock was set.
    """

    is_known: bool
    jumped: float
    has_room: bool


class Heartbeat:
    """Beats for one owner, from `start` to `stop`."""

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        committer: ICommitter,
        pulse: Job,
        leasing: Leasing,
        listener: ISpoolListener,
        clocks: Clocks,
        reactor: IReactorTime,
        max_sure: float = MAX_SURE,
    ) -> None:
        """`pulse` is the job of a beat, whose result is a `Pulse`.

        Its owner is registered.  `max_sure`: seconds after a beat in which our leases are ours.
        `leasing` can release again after a beat.
        """
        self._committer = committer
        self._pulse = pulse
        self._max_sure = max_sure
        self._leasing = leasing
        self._listener = listener
        self._clocks = clocks
        self._begun: float | None = None  # when the beat under way began, seconds since the boot
        self._last = clocks.uptime()
        self._offset = clocks.offset()
        self._error = ""
        self._loop = LoopingCall(self._repeat)
        self._loop.clock = reactor

    def start(self) -> None:
        """Beat from now on."""
        self._last = self._clocks.uptime()
        self._offset = self._clocks.offset()
        self._loop.start(INTERVAL, now=False)

    def stop(self) -> None:
        """Beat no more."""
        if self._loop.running:
            self._loop.stop()

    @property
    def is_sure(self) -> bool:
        """Tell whether our leases are still ours."""
        return self._clocks.uptime() - self._last < self._max_sure

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
        begun, offset = self._clocks.uptime(), self._clocks.offset()
        if self._begun is None:
            self._begun = begun
        try:
            pulse: Pulse = await self._committer.submit(self._pulse)
        except OSError as error:
            self._error = f"the spool can't be written: {error}"
            raise
        finally:
            self._begun = None
        self._error = "" if pulse.has_room else "little room on the disk: new mail is refused"
        self._last, self._offset = begun, offset
        self._leasing.release_again()
        self._tell(pulse)

    def _tell(self, pulse: Pulse) -> None:
        if not pulse.is_known:
            self.log.warn("this process stood still, and others may have taken its mail")
            self._listener.recall()
        if pulse.jumped:
            self.log.warn("the clock jumped by {seconds:.0f} s", seconds=pulse.jumped)
            self._listener.wake()

    async def follow_clock(self) -> None:
        """Beat first where the wall clock was set since the last beat.  Raises OSError.

        Else mail would be leased as too old, or be due by a clock that is set right again.
        """
        if abs(self._clocks.offset() - self._offset) > TOLERANCE:
            await self.beat()

    def hurry(self) -> None:
        """Beat now, if no beat is under way."""
        if self._begun is None:
            Deferred.fromCoroutine(self._beat_on())

    def _repeat(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._beat_on())

    async def _beat_on(self) -> None:
        try:
            await self.beat()
        except OSError:
            return  # the committer has logged it, and `failure` says so
        except Exception:  # noqa: BLE001 - outermost of the loop, which must not end
            self.log.failure("a beat failed")
