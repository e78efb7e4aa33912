"""What honest clients notice of others that bring no mail.

The server has one processor.  The ordinary client has another one, where there are two, and the
attackers have what it leaves of that: what they cost themselves is no cost of the server's.  The
same client without them, by the same server a moment before, is the measure.
"""

from __future__ import annotations

import os
import shutil
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles

from bench.figures import MIB, Bench, Figure, stopping
from bench.programs.hostile import Attack
from bench.rows.attacks import DEAF_WORDS, Kind, keys
from bench.servers import DOMAIN, PATIENCE, SOURCE, Ours, Script

SECONDS = 3.0  # that each attack lasts: all of them take five minutes
SETTLING = 0.5  # seconds until memory is looked at after it
MESSAGE = "Subject: x\r\n\r\nx\r\n"
WITHOUT = "without it"
ALL = os.sched_getaffinity(0)  # processors


class Hostile:
    """One attack, and ordinary mail beside it."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.name = f"hostile: {kind.name}"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        seconds = SECONDS * bench.scale
        mute, deaf = Script("deaf", ""), Script("deaf", DEAF_WORDS)
        with on_processor(min(ALL)):
            found = keys(bench.next_folder(), mute.port, deaf.port)
            ours = bench.ours(workers=1, keys=found)
        with stopping(ours, mute, deaf), on_processor(max(ALL)):
            ordinary(ours, seconds / 5)
            quiet = ordinary(ours, seconds)
            memory, growth, cpu = ours.memory(), ours.growth(), ours.cpu_seconds()
            with attacking(self._kind.attack(ours.ports)):
                beside = ordinary(ours, seconds)
                used = (ours.cpu_seconds() - cpu) / seconds
            peak = growth.octets
            time.sleep(SETTLING)
            after = ours.memory() - memory
        shutil.rmtree(ours.configuration.parent)
        yield Figure(
            f"{self.name}: mail", "messages/s", [beside.rate], [quiet.rate], 0.5, peer=WITHOUT
        )
        yield Figure(f"{self.name}: p99", "ms", [beside.p99], [quiet.p99], peer=WITHOUT)
        yield Figure(f"{self.name}: memory", "MiB more at most", [peak / MIB])
        yield Figure(f"{self.name}: memory", "MiB more afterwards", [after / MIB])
        yield Figure(f"{self.name}: CPU", "% of a core", [100 * used])


@dataclass(frozen=True)
class Ordinary:
    """How fast ordinary mail was: messages per second, milliseconds of all but the slowest 1 %."""

    rate: float
    p99: float


@contextmanager
def on_processor(number: int) -> Iterator[None]:
    """Run there, with all that is started meanwhile."""
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, ALL)


@contextmanager
def attacking(attack: Attack) -> Iterator[None]:
    """Attack for so long, with what others leave of the processor."""
    command = ["chrt", "--idle", "0", sys.executable, *attack.arguments]
    process = subprocess.Popen(command, cwd=SOURCE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the attack does not begin")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ordinary(ours: Ours, seconds: float) -> Ordinary:
    """Send one message after the other, each on a connection of its own.

    One that is refused counts as one that took all the time.
    """
    took, refused = [], 0
    began = time.perf_counter()
    while (start := time.perf_counter()) < began + seconds:
        try:
            with smtplib.SMTP("127.0.0.1", ours.port, timeout=PATIENCE) as client:
                client.sendmail("a@client.example", f"inbox@{DOMAIN}", MESSAGE)
        except (smtplib.SMTPException, OSError):
            refused += 1
            time.sleep(0.01)
        else:
            took.append(1000 * (time.perf_counter() - start))
    lasted = time.perf_counter() - began
    times = took + [1000 * seconds] * (refused if len(took) > 1 else 2)
    return Ordinary(len(took) / lasted, quantiles(times, n=100)[-1])
