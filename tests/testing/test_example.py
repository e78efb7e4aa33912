"""The example of ``docs/develop.rst``, as it stands there, runs."""

from __future__ import annotations

import re
import textwrap
from types import ModuleType
from typing import Any
from unittest import TestResult

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT


class ExampleTests(SynchronousTestCase):
    """What a reader copies from the page."""

    def run_example(self, text: str) -> TestResult:
        """Run the test in a module with that text."""
        module: Any = ModuleType("example")
        exec(compile(text, "docs/develop.rst", "exec"), module.__dict__)
        result = TestResult()
        module.CountingAgentTests("test_counts").run(result)
        return result

    def test_passes(self) -> None:
        """Its test runs and passes; with an agent that reports nothing it fails."""
        page = (ROOT / "docs/develop.rst").read_text("utf-8")
        section = page.partition("\nStand-ins for tests\n")[2]
        blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", section)[:2]
        text = "\n".join(map(textwrap.dedent, blocks))
        result = self.run_example(text)
        self.assertEqual((result.testsRun, result.errors, result.failures), (1, [], []))
        wrong = self.run_example(text.replace("[TAKEN] * len(delivery.targets)", "[]"))
        self.assertEqual(1, len(wrong.errors + wrong.failures))
