"""Checks of the machine: disk, clock, the spool on it, the service."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from mta.doctor.examined import Examined
from mta.doctor.result import Result, bad, ok, unknown, warn
from mta.settings import GIB, MIB
from mta.spool import inspection

COMMAND_TIMEOUT = 5.0  # seconds: for programs of the system, which answer at once
MIN_INODES = 10_000  # free ones: each message in a Maildir takes one
SPACE_FACTOR = 4  # times `limits.free_space`: below it, mail is refused soon
UNIT = "mta.service"


async def disk(examined: Examined) -> AsyncIterator[Result]:
    """Look at the room for mail."""
    path = _nearest(Path(examined.settings.spool))
    usage, system = shutil.disk_usage(path), os.statvfs(path)
    limit = examined.settings.limits.free_space
    room = f"{usage.free / GIB:.1f} GiB" if usage.free >= GIB else f"{usage.free / MIB:.0f} MiB"
    if usage.free <= limit:
        yield bad(f"{room} free at {path}: new mail is refused", "make room: see mta queue list")
    elif usage.free <= SPACE_FACTOR * limit:
        yield warn(f"{room} free at {path}: mail is refused below {limit / MIB:.0f} MiB")
    else:
        yield ok(f"{room} free at {path}")
    if system.f_files and system.f_favail < MIN_INODES:
        yield warn(
            f"{system.f_favail} inodes free at {path}", "remove small files: df -i shows where"
        )


async def spool(examined: Examined) -> AsyncIterator[Result]:
    """Look at the form of the spool."""
    path = Path(examined.settings.spool)
    problem = inspection.problem_of(path)
    if not _has_files(path):
        yield unknown(f"{path} is not there yet", "it is made when the server starts")
    elif problem:
        yield bad(f"the spool {path}: {problem}", "mta spool check looks through all of it")
    else:
        yield ok(f"the spool {path} is sound, as far as a short look tells")


async def clock(examined: Examined) -> AsyncIterator[Result]:
    """Look whether the clock is kept right."""
    output = _output("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if output == "yes":
        yield ok("the clock is synchronised")
    elif output == "no":
        yield warn(
            "the clock is not synchronised: mail has wrong dates, certificates wrong ends",
            "apt install systemd-timesyncd",
        )
    else:
        yield unknown("nothing here tells whether the clock is right")


async def service(examined: Examined) -> AsyncIterator[Result]:
    """Look whether systemd runs the server, and will after a restart."""
    is_in_use = inspection.is_in_use(Path(examined.settings.spool))
    active = _output("systemctl", "is-active", UNIT)
    if not active:
        if is_in_use:
            yield ok("the server is running")
        else:
            yield bad("the server is not running", "start it: twistd mta --config FILE")
        return
    if active == "active" or is_in_use:
        yield ok("the server is running")
    else:
        yield bad(f"{UNIT} is {active}", f"systemctl start {UNIT}; journalctl -u {UNIT} says why")
    if active == "active" and _output("systemctl", "is-enabled", UNIT) != "enabled":
        yield warn(f"{UNIT} does not start with the machine", f"systemctl enable {UNIT}")


def _output(*command: str) -> str:
    """The output of a program of the system; empty: none."""
    path = shutil.which(command[0])
    if path is None:
        return ""
    words: Sequence[str] = (path, *command[1:])
    try:
        ended = subprocess.run(  # noqa: S603 - a program of the system
            words, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.strip()


def _has_files(path: Path) -> bool:
    """Tell whether a folder is there, and not empty."""
    return path.is_dir() and any(path.iterdir())


def _nearest(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
