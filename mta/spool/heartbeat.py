"""Shows the other processes, and those who watch, that this one commits.

A beat is a commit of its own.  While beats succeed, our leases are ours: another process takes
them only when it has seen none of ours in many looks.
"""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mta.spool import owner_rows
from mta.spool.clock import Clocks
from mta.spool.database import spare
from mta.spool.jobs import ICommitter, Job

INTERVAL = 10.0  # seconds between beats
SURE = 300.0  # seconds after a beat in which no other process can believe that we are dead
SLOW = 30.0  # seconds that a commit may take before those who watch hear of it


class Heartbeat:
    """Beats for one owner, from `start` to `stop`.

    `on_beat` is called after each beat; `on_lost` when others believed us dead, and may have taken
    what we had leased;
    `on_jump` when the wall clock jumped, with the seconds.
    """

    log: ClassVar[Logger] = Logger()

    def __init__(
        self,
        committer: ICommitter,
        reactor: IReactorTime,
        clocks: Clocks,
        on_beat: Callable[[], None],
        on_lost: Callable[[], None],
        on_jump: Callable[[float], None],
    ) -> None:
        self._committer = committer
        self._clocks = clocks
        self._on_beat = on_beat
        self._on_lost = on_lost
        self._on_jump = on_jump
        self._owner = 0
        self._begun: float | None = None  # when the beat under way began, seconds since the boot
        self._last = clocks.uptime()
        self._error = ""
        self._loop = LoopingCall(self._repeat)
        self._loop.clock = reactor

    def start(self, owner: int) -> None:
        """Beat for an owner that is registered."""
        self._owner = owner
        self._last = self._clocks.uptime()
        self._loop.start(INTERVAL, now=False)

    def stop(self) -> None:
        """Beat no more."""
        if self._loop.running:
            self._loop.stop()

    @property
    def is_sure(self) -> bool:
        """Whether nobody else can have taken what we had leased."""
        return self._clocks.uptime() - self._last < SURE

    @property
    def trouble(self) -> str:
        """What keeps us from committing, in one line; empty: nothing."""
        if self._committer.has_ended:
            return "the thread that commits has ended: restart the service"
        waited = 0.0 if self._begun is None else self._clocks.uptime() - self._begun
        if waited > SLOW:
            return f"a commit has taken {waited:.0f} s and does not end"
        return self._error

    async def beat(self) -> None:
        """Commit something.  Raises OSError."""
        begun = self._clocks.uptime()
        if self._begun is None:
            self._begun = begun
        try:
            known, jumped, room = await self._committer.submit(Job(action=self._act))
        except OSError as error:
            self._error = f"the spool can't be written: {error}"
            raise
        finally:
            self._begun = None
        self._error = "" if room else "little room on the disk: new mail is refused"
        self._last = begun
        self._on_beat()
        if not known:
            self._on_lost()
        if jumped:
            self._on_jump(jumped)

    def hurry(self) -> None:
        """Beat now, if no beat is under way."""
        if self._begun is None:
            Deferred.fromCoroutine(self._beat_on())

    def _act(self, connection: Connection) -> tuple[bool, float, bool]:
        known = owner_rows.beat(connection, self._owner)
        if not known:
            owner_rows.register(connection, self._owner)
        jumped = owner_rows.set_clock(connection, self._clocks.read())
        return known, jumped, self._committer.folder.has_room(spare(connection))

    def _repeat(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._beat_on())

    async def _beat_on(self) -> None:
        try:
            await self.beat()
        except OSError:
            return  # the committer has logged it, and `trouble` says so
        except Exception:  # noqa: BLE001 - outermost of the loop, which must not end
            self.log.failure("a beat failed")
