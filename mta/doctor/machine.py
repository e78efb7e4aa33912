"""Checks of the machine: disk, clock, and the spool on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from mta.doctor.examined import Examined
from mta.doctor.result import Result, bad, ok, unknown, warn
from mta.files import in_words
from mta.settings import GIB, MIB
from mta.spool import inspection
from mta.spool.place import SpoolPlace

COMMAND_TIMEOUT = 4.0  # seconds: for programs of the system, which answer at once
MAX_INTEGRITY_TIME = 3.0  # seconds: for a look through the spool's database
MIN_INODES = 10_000  # free ones: each message in a Maildir takes one
SPACE_FACTOR = 4  # times `limits.free_space`: below it, mail is refused soon


async def disk(examined: Examined) -> AsyncIterator[Result]:
    """Look at the room for mail."""
    settings = examined.settings
    for result in await examined.in_thread(_room, Path(settings.spool), settings.limits.free_space):
        yield result


def _room(spool: Path, limit: int) -> Sequence[Result]:
    """Look at the disk of the spool.

    `limit`: octets that stay free.  Blocks.
    """
    path = _nearest(spool)
    usage, system = shutil.disk_usage(path), os.statvfs(path)
    room = f"{usage.free / GIB:.1f} GiB" if usage.free >= GIB else f"{usage.free / MIB:.0f} MiB"
    found = [ok(f"{room} free at {path}")]
    if usage.free <= limit:
        remedy = "make room: see mta queue list"
        found = [bad(f"{room} free at {path}: new mail is refused", remedy)]
    elif usage.free <= SPACE_FACTOR * limit:
        found = [warn(f"{room} free at {path}: mail is refused below {limit / MIB:.0f} MiB")]
    if system.f_files and system.f_favail < MIN_INODES:
        text = f"{system.f_favail} inodes free at {path}"
        found.append(warn(text, "remove small files: df -i shows where"))
    return found


async def spool(examined: Examined) -> AsyncIterator[Result]:
    """Look at the spool, and let SQLite look."""
    settings = examined.settings
    if settings.database:
        found = await examined.in_thread(_database, SpoolPlace.of(settings), settings.queue.workers)
    else:
        found = await examined.in_thread(_spool, Path(settings.spool))
    for result in found:
        yield result


def _database(place: SpoolPlace, processes: int) -> Sequence[Result]:
    """Look at a spool in a database, with so many processes here.  Blocks."""
    try:
        if not place.exists():
            return [unknown(f"{place.name} has no tables yet", "they are made by the server")]
        weaknesses = place.weaknesses(processes)
    except OSError as error:
        return [bad(f"the spool {in_words(error)}", "psql shows whether the database answers")]
    return [warn(f"{place.name}: {each}") for each in weaknesses] or [
        ok(f"the spool {place.name} answers, and keeps what it has acknowledged")
    ]


def _spool(path: Path) -> Sequence[Result]:
    """Look at a spool folder.  Blocks."""
    return list(_spool_results(path))


def _spool_results(path: Path) -> Iterator[Result]:
    if not _has_files(path):
        yield unknown(f"{path} is not there yet", "it is made when the server starts")
        return
    remedy = "mta spool check looks through all of it"
    if problem := inspection.problem_of(path):
        yield bad(f"the spool {path}: {problem}", remedy)
        return
    found, known = inspection.formats(path)
    if found < known:
        yield ok(f"the spool has format {found}; the server makes it {known} when it starts")
    else:
        yield ok(f"the spool has format {found}, as this version has it")
    fault = inspection.fault_of(path, MAX_INTEGRITY_TIME)
    if fault is None:
        yield unknown(f"the spool {path} is too large for a short look", remedy)
    elif fault:
        yield bad(f"the database of the spool {path} is damaged: {fault}", remedy)
    else:
        yield ok(f"the database of the spool {path} is whole")


async def clock(examined: Examined) -> AsyncIterator[Result]:
    """Look whether the clock is kept right."""
    output = await examined.in_thread(
        output_of, "timedatectl", "show", "--property=NTPSynchronized", "--value"
    )
    if output == "yes":
        yield ok("the clock is synchronised")
    elif output == "no":
        yield warn(
            "the clock is not synchronised: mail has wrong dates, certificates wrong ends",
            "apt install systemd-timesyncd",
        )
    else:
        yield unknown("nothing here tells whether the clock is right")


def output_of(*command: str) -> str:
    """The output of a program of the system; empty: none.  Blocks."""
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
