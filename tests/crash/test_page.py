"""The page about reliability names tests that there are."""

from __future__ import annotations

import re

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT


class PageTests(SynchronousTestCase):
    """docs/reliability.rst."""

    def test_names(self) -> None:
        """Each module and class that it names is there."""
        text = (ROOT / "docs/reliability.rst").read_text("utf-8")
        names = re.findall(r"``(tests\.[\w.]+)``", text)
        self.assertGreater(len(names), 12)
        for name in names:
            self.assertTrue(namedAny(name), name)
