"""``docs/security.rst``: what it says is shown is shown."""

from __future__ import annotations

import re

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT


class TableTests(SynchronousTestCase):
    """The table of attacks."""

    def test_each_row_names_its_tests(self) -> None:
        """No row is without one, and each of them exists."""
        text = (ROOT / "docs/security.rst").read_text("utf-8")
        rows = text.partition("   * - ")[2].partition("\nWhat is left")[0].split("\n   * - ")
        for row in rows[1:]:
            shown = re.findall(r"``((?:D|tests)\.[\w.]+)``", row)
            self.assertTrue(shown, row)
            for name in shown:
                whole = re.sub(r"^D\.", "tests.test_dialogues.DialogueTests.", name)
                self.assertTrue(callable(namedAny(whole)), name)
