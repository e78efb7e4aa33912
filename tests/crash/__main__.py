"""Kill the program for a long time: ``python -m tests.crash [KILLS [SEED]]``.

Servers, folders and load are new after every `ROUND` kills, whose seed is printed.  Exit status 1:
mail was lost or damaged, or came twice without a reason, or a start took too long.
"""

from __future__ import annotations

import random
import sys
import time

from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

from tests.crash.site import Site

ROUND = 50  # kills


class Round(SynchronousTestCase):
    """Kills with one site; a test case for what it cleans up at its end."""

    def __init__(self, kills: int, seed: int) -> None:
        super().__init__("runTest")
        self._kills = kills
        self._seed = seed

    def runTest(self) -> None:
        """Kill, look at what is there, and say so."""
        begun = time.monotonic()
        site = Site(self, self._seed)
        site.run(self._kills)
        acknowledged, twice = site.check()
        slowest = max(site.restarts, default=0.0)
        print(
            f"seed {self._seed}: {self._kills} kills, {acknowledged} messages, {twice} twice,"
            f" slowest start {slowest:.2f} s, {time.monotonic() - begun:.0f} s",
            flush=True,
        )


def main(kills: int = 1000, seed: int = 0) -> int:
    """Kill so many times; returns the exit status."""
    seeds = random.Random(seed or random.SystemRandom().randrange(1, 2**31))
    result, found = TestResult(), 0
    for start in range(0, kills, ROUND):
        Round(min(ROUND, kills - start), seeds.randrange(2**31)).run(result)
        for _, problem in (*result.failures, *result.errors)[found:]:
            print(problem, flush=True)
        found = len(result.failures) + len(result.errors)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
