"""Kill the program, take its power, load it: ``python -m tests.crash [SECONDS [SEED]]``.

Rounds of the three take turns until the time is over; servers, folders and seed, which is printed,
are new in each.  Exit status 1: mail was lost, damaged, or came twice without a reason, or a start
took too long, or a server kept memory or descriptors.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence

from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

from tests.crash.site import Site
from tests.processes import ROOT

KILLS = 50  # of a round
STATES = 200  # of each scenario, in a round
WARM = 20.0  # seconds of load until what the servers take is first measured
STEADY = 60.0  # seconds from there to the second time
MAX_GROWTH = 24 * 1024  # KiB of memory of one process in that time
MAX_DESCRIPTORS = 16  # more than before: connections come and go


class Kills(SynchronousTestCase):
    """Kills with one site; a test case for what it cleans up at its end."""

    def __init__(self, seed: int) -> None:
        super().__init__("runTest")
        self.seed = seed

    def runTest(self) -> None:
        """Kill, look at what is there, and say so."""
        site = Site(self, self.seed)
        site.run(KILLS)
        acknowledged, twice = site.check()
        slowest = max(site.restarts, default=0.0)
        print(f"{KILLS} kills: {acknowledged} messages, {twice} came twice,", end=" ")
        print(f"slowest start {slowest:.2f} s", flush=True)


class Power(Kills):
    """Losses of power: `tests.crash.test_power`, with other states."""

    def runTest(self) -> None:
        """Look at the states, in a process of its own."""
        ended = subprocess.run(
            [sys.executable, "-m", "twisted.trial", "tests.crash.test_power"],
            env=os.environ | {"MTA_POWER_STATES": str(STATES), "MTA_POWER_SEED": str(self.seed)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(ended.returncode, 0, ended.stdout)
        print(f"{STATES} states of each scenario after a loss of power", flush=True)


class Steady(Kills):
    """Load without a kill, both ways over a held link."""

    def runTest(self) -> None:
        """Compare what the servers take."""
        site = Site(self, self.seed)
        site.begin()
        time.sleep(WARM)  # the load goes on: nothing to wait for
        before = site.taken()
        time.sleep(STEADY)
        after = site.taken()
        site.end()
        acknowledged, twice = site.check()
        self.assertEqual(twice, 0)
        for (memory, files), (now, now_files) in zip(before, after, strict=True):
            self.assertLess(now - memory, MAX_GROWTH, "KiB")
            self.assertLess(now_files - files, MAX_DESCRIPTORS, "descriptors")
        print(
            f"steady: {acknowledged} messages, KiB and descriptors {before} -> {after}", flush=True
        )


ROUNDS: Sequence[type[Kills]] = (Kills, Power, Kills, Steady)


def main(seconds: float = 3600, seed: int = 0) -> int:
    """Go on for so long, and at least once through all; returns the exit status."""
    seeds = random.Random(seed or random.SystemRandom().randrange(1, 2**31))
    result, found, end = TestResult(), 0, time.monotonic() + seconds
    rounds = 0
    while rounds < len(ROUNDS) or time.monotonic() < end:
        case = ROUNDS[rounds % len(ROUNDS)](seeds.randrange(2**31))
        print(f"seed {case.seed}:", end=" ", flush=True)
        case.run(result)
        rounds += 1
        for _, problem in (*result.failures, *result.errors)[found:]:
            print(problem, flush=True)
        found = len(result.failures) + len(result.errors)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
