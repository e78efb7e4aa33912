"""By how much the wall clock jumped, told by the clock that counts the seconds since the boot."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TOLERANCE = 60.0  # seconds; less is how a clock is set right, and no mail needs to hear of it

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at both clocks: seconds since the epoch, and since the boot with this name."""

    wall: float
    uptime: float
    boot: str


@dataclass(frozen=True, slots=True)
class Clocks:
    """Both clocks; `now`: seconds since the epoch, `uptime`: of a clock that nobody sets."""

    now: Callable[[], float]
    uptime: Callable[[], float]

    def read(self) -> Reading:
        """Look at both."""
        return Reading(self.now(), self.uptime(), boot_id())


def seconds_since_boot() -> float:
    """Seconds since the boot, with those in which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """The name of this run of the machine; empty where the system has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def jump(before: Reading, after: Reading) -> float:
    """Seconds by which the wall clock jumped, negative for back; 0 within `TOLERANCE`.

    Across a boot nobody knows how long it took, so only a jump back is seen.
    """
    passed = after.wall - before.wall
    expected = after.uptime - before.uptime if before.boot == after.boot else passed
    jumped = passed - max(0.0, expected)
    return jumped if abs(jumped) > TOLERANCE else 0.0
