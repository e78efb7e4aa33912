"""Kill the program, take its power, load it: ``python -m tests.crash [SECONDS [SEED [WHICH]]]``.

Rounds take turns until the time is over, and after it those of kills until there were a thousand
for each hour.  Servers, folders and seed, which is printed, are new in each.  ``kills``, ``power``,
``load``, ``frozen``, ``model`` or ``calls`` as a third argument: those alone.
Exit status 1: mail was lost, damaged, or came twice without a reason, or a start took too long, or
a server kept memory or descriptors.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle

from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

from tests.crash.outcome import Outcome
from tests.crash.site import HELD, PASSED, SHARED, Site
from tests.crash.tally import Tally
from tests.crash.victims import MAX_START, Victims
from tests.interop.sink import Sink
from tests.interop.test_nodes import MARK, NodesCase
from tests.processes import ROOT, wait_until

KILLS = 100  # of a round
KILLS_AN_HOUR = 1000  # of all rounds, at least
STATES = 200  # of each scenario, in a round
CALL_ERRORS = ("EIO", "ENOMEM", "EMFILE")
EXAMPLES = 50  # of the model of runners, in a round, with each spool
WARM = 20.0  # seconds of load until what the servers take is first measured
STEADY = 60.0  # seconds from there to the second time
MAX_GROWTH = 24 * 1024  # KiB of memory of one process in that time
FROZEN = 20  # messages of a node that stands still
LIFETIME = 60  # seconds after its last beat in which its mail is its own
MAX_DESCRIPTORS = 16  # more than before: connections come and go


class Round(SynchronousTestCase):
    """A round; a test case for what it cleans up at its end."""

    def __init__(self, seed: int, tally: Tally) -> None:
        super().__init__("runTest")
        self.seed = seed
        self.tally = tally

    def report(self, what: str, kind: str, outcome: Outcome) -> None:
        """Print what came of the mail, on a kind of site."""
        self.tally.add_mail(kind, outcome)
        print(f"{what}, {outcome.acknowledged.total()} messages")
        for way, count in outcome.acknowledged.items():
            print(f"  {way}: {count}, {outcome.repeated[way]} twice", flush=True)

    def run_tests(self, module: str, **settings: int | str) -> None:
        """Run a module of tests in a process of its own, with its settings in the environment."""
        ended = subprocess.run(
            [sys.executable, "-m", "twisted.trial", module],
            env=os.environ | {name: str(value) for name, value in settings.items()},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(ended.returncode, 0, ended.stdout)


class Kills(Round):
    """Kills of what is held, relayed and delivered."""

    shape = HELD

    def runTest(self) -> None:
        """Kill, look at what is there, and say so."""
        site = Site(self, self.shape)
        victims = Victims(site, self.seed)
        site.begin()
        victims.kill(KILLS)
        site.end()
        outcome = Outcome(site, victims.kills)
        outcome.check()
        self.assertLess(max(victims.processor), MAX_START)
        self.tally.add_kills(victims)
        count, name = len(victims.kills), self.shape.name
        self.report(f"{count} kills, {name}: {dict(victims.counts)}", name, outcome)
        print(f"  starts: {_range(victims.restarts)} s, {_range(victims.processor)} s of processor")
        if self.shape.is_passing:
            passed = site.passed_through
            self.assertGreater(passed, 0)
            print(f"  {passed} were passed through", flush=True)


class PassedKills(Kills):
    """The same, where mail is passed through to the office."""

    shape = PASSED


class SharedKills(Kills):
    """The same, where the relay's spool is in PostgreSQL, whose server is killed as well."""

    shape = SHARED


class Power(Round):
    """Losses of power: `tests.crash.test_power`, with other states."""

    def runTest(self) -> None:
        """Look at the states."""
        self.run_tests("tests.crash.test_power", MTA_POWER_STATES=STATES, MTA_POWER_SEED=self.seed)
        print(f"{STATES} states of each scenario after a loss of power", flush=True)


class Steady(Round):
    """Load without a kill, both ways over a held link."""

    def runTest(self) -> None:
        """Compare what the servers take."""
        site = Site(self, HELD)
        site.begin()
        time.sleep(WARM)  # the load goes on: nothing to wait for
        before = site.taken()
        time.sleep(STEADY)
        after = site.taken()
        site.end()
        outcome = Outcome(site)
        outcome.check()
        for (memory, files), (now, now_files) in zip(before, after, strict=True):
            self.assertLess(now - memory, MAX_GROWTH, "KiB")
            self.assertLess(now_files - files, MAX_DESCRIPTORS, "descriptors")
        self.report(f"steady, KiB and descriptors {before} -> {after}", "no kill", outcome)


class FailingCalls(Round):
    """Calls that fail, `tests.crash.test_more_calls`, with another error."""

    def runTest(self) -> None:
        """Let each fail."""
        error = CALL_ERRORS[self.seed % len(CALL_ERRORS)]
        self.run_tests("tests.crash.test_more_calls", MTA_CALL_ERROR=error)
        print(f"each call of a server with more features has failed with {error}", flush=True)


class Frozen(Round, NodesCase):
    """A node that stands still past its lease, by the clocks."""

    def runTest(self) -> None:
        """Its mail leaves by the other one, once, but for what was on its way at that moment."""
        sink = Sink(self)
        sink.signal(signal.SIGSTOP)
        domains = {"out.example": {"deliver": f"smtp://127.0.0.1:{sink.port}", "mailboxes": "any"}}
        keys = {"domains": domains, "queue": {"per_destination": 1, "retry": ["1s"]}}
        frozen, other = (self.node(name, **keys) for name in ("one", "two"))
        for number in range(FROZEN):
            frozen.send(b"Subject: x\r\n\r\nmark-%d\r\n" % number, "bob@out.example")
        assert frozen.process is not None
        frozen.process.signal(signal.SIGSTOP)
        began = time.monotonic()
        sink.signal(signal.SIGCONT)
        wait_until(lambda: "taken over" in other.log, "the other one has it", 3 * LIFETIME)
        took = time.monotonic() - began
        sink.wait_for_mail(FROZEN)
        frozen.process.signal(signal.SIGCONT)
        wait_until(lambda: "stood still" in frozen.log, "it knows")
        wait_until(lambda: not self.sql("SELECT id FROM schedule"), "nothing waits")
        frozen.stop()
        copies = Counter(match[1] for each in sink.mail if (match := MARK.search(each)))
        self.assertEqual(len(copies), FROZEN)
        self.assertLessEqual(copies.total(), FROZEN + 1, copies)
        print(f"frozen, {FROZEN} messages taken over after {took:.0f} s: {copies.total()} copies")


class Model(Round):
    """Runners against their model, `tests.queue.test_model`, with other examples."""

    def runTest(self) -> None:
        """Run them."""
        self.run_tests("tests.queue.test_model", MTA_MODEL_EXAMPLES=EXAMPLES)
        print(f"{EXAMPLES} examples of what may happen to runners, with each spool", flush=True)


def _range(numbers: Sequence[float]) -> str:
    return f"{min(numbers):.1f} to {max(numbers):.1f}"


ROUNDS: Mapping[str, Sequence[type[Round]]] = {
    # Each once, and then those of kills more often.
    "all": (
        *(Kills, Power, PassedKills, Steady, SharedKills, Frozen, Model, FailingCalls),
        *(Kills, PassedKills, SharedKills),
    ),
    "kills": (Kills, PassedKills, SharedKills),
    "power": (Power,),
    "load": (Steady,),
    "frozen": (Frozen,),
    "model": (Model,),
    "calls": (FailingCalls,),
}


class Soak:
    """Rounds, one after the other, and what came of them."""

    def __init__(self, seed: int) -> None:
        self.tally = Tally()
        self.result = TestResult()
        self._seeds = random.Random(seed or random.SystemRandom().randrange(1, 2**31))
        self._told = 0

    def run(self, kind: type[Round]) -> None:
        """Run a round, and print what it says."""
        case = kind(self._seeds.randrange(2**31), self.tally)
        print(f"seed {case.seed}:", end=" ", flush=True)
        case.run(self.result)
        problems = [*self.result.failures, *self.result.errors, *self.result.skips]
        for _, problem in problems[self._told :]:
            print(problem, flush=True)
        self._told = len(problems)


def main(seconds: str = "3600", seed: str = "0", which: str = "all") -> int:
    """Go on for so long, and at least once through all; returns the exit status."""
    soak, end = Soak(int(seed)), time.monotonic() + float(seconds)
    for number, kind in enumerate(cycle(ROUNDS[which])):
        if number >= len({*ROUNDS[which]}) and time.monotonic() > end:
            break
        soak.run(kind)
    due = KILLS_AN_HOUR * float(seconds) / 3600 if Kills in ROUNDS[which] else 0
    for kind in cycle(ROUNDS["kills"]):
        if soak.tally.kills.total() >= due or not soak.result.wasSuccessful():
            break
        soak.run(kind)
    soak.tally.print()
    return 0 if soak.result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
