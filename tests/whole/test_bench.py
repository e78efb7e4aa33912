"""The benchmark: what its figures say, and that it runs."""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench import results
from bench.figures import Bench, Figure
from tests.processes import ROOT, need_program, source_environment, temporary_folder
from tests.spool.postgres import PostgresTestCase


def figure(ours: Sequence[float], peers: Sequence[float] = (), **rest: object) -> Figure:
    """One with a name and a unit."""
    return Figure("some work", "messages/s", ours, peers, **rest)  # type: ignore[arg-type]


class FigureTests(SynchronousTestCase):
    """Ratios and bars."""

    def test_ratio(self) -> None:
        """Neighbouring runs are compared, not the medians."""
        self.assertEqual(figure([10, 40, 90], [10, 20, 30]).ratio, 2)

    def test_bar(self) -> None:
        """It may be a floor or a ceiling; without one nothing is met or missed."""
        self.assertTrue(figure([20], [10], bar=2).is_met)
        self.assertFalse(figure([19], [10], bar=2).is_met)
        self.assertTrue(figure([5], [10], bar=0.5, at_most=True).is_met)
        self.assertFalse(figure([6], [10], bar=0.5, at_most=True).is_met)
        self.assertIsNone(figure([5], [10]).is_met)

    def test_without_a_peer(self) -> None:
        """Our own figure is held against the bar: memory, for one."""
        self.assertTrue(figure([250, 290, 400], bar=300, at_most=True).is_met)
        self.assertIsNone(figure([250]).ratio)

    def test_document(self) -> None:
        """A figure is a row, and what is missed stands out."""
        bench = Bench(Path(), repetitions=3, scale=1.0, workers=2)
        text = results.document([figure([1500], [1000], bar=2)], bench)
        for cell in ("some work", "messages/s", "1,500", "Postfix", "1,000", "1.50", "**below**"):
            self.assertRegex(text, rf"(?m)^   [* ] - {cell.replace('*', '[*]')}$")


class DatabaseTests(PostgresTestCase):
    """What rows do to a spool in PostgreSQL."""

    def test_claims(self) -> None:
        """Batches are claimed of what waits, and it is an error where there is less."""
        from bench import database_spool

        database_spool.leave_dead_rows(self.url, 50)
        database_spool.fill(self.url, 250)
        with closing(database_spool.Claimer(self.url)) as claimer:
            self.assertGreater(claimer.claim(), 0)
            claimer.claim()
            self.assertRaises(RuntimeError, claimer.claim)


class RunTests(SynchronousTestCase):
    """One short run."""

    def test_a_load(self) -> None:
        """It prints a line for each figure, and writes the document."""
        need_program(self, "smtp-source")
        document = temporary_folder(self) / "results.rst"
        options = ("--quick", "--only=1 KiB, 10 sessions, connection kept", "--output", document)
        done = subprocess.run(
            [sys.executable, "-m", "bench", *options],
            cwd=ROOT,
            env=source_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        for what in ("end to end", "accept", "CPU"):
            self.assertIn(f"1 KiB, 10 sessions, connection kept: {what}: ", done.stdout)
        self.assertIn("10 sessions, connection kept: accept", document.read_text())
