"""Jumps of the wall clock, measured by the seconds since the boot."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TOLERANCE = 60.0  # seconds: a clock that is set right jumps by less, which harms no mail

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Reading:
    """The time by both clocks, in seconds.

    `wall` is since the epoch, `uptime` since the boot with the name `boot`.
    """

    wall: float
    uptime: float
    boot: str


@dataclass(frozen=True, slots=True)
class Clocks:
    """Both clocks.

    `now`: seconds since the epoch; `uptime`: seconds of a clock that is never set.
    """

    now: Callable[[], float]
    uptime: Callable[[], float]

    def read(self) -> Reading:
        """Read both."""
        return Reading(self.now(), self.uptime(), boot_id())

    def offset(self) -> float:
        """The difference between them, which changes where the wall clock is set."""
        return self.now() - self.uptime()


def seconds_since_boot() -> float:
    """Seconds since the boot, with those in which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """The name of this boot of the machine, empty where unknown."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def jump(before: Reading, after: Reading) -> float:
    """The seconds by which the wall clock jumped; 0 within `TOLERANCE`.

    Negative for back.  How long a boot took is unknown, so across one only a jump back is seen.
    """
    passed = after.wall - before.wall
    expected = after.uptime - before.uptime if before.boot == after.boot else passed
    jumped = passed - max(0.0, expected)
    return jumped if abs(jumped) > TOLERANCE else 0.0
