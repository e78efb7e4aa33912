"""The page about the log, held to what the source logs."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.logs.log_calls import logged_events
from tests.processes import ROOT

_ENTRY = re.compile(r"(?m)^``(.+)``\n    \*(\w+)\*((?:,\s+(?:also\s+)?``\w+``)*)\.")


class PageTests(SynchronousTestCase):
    """``docs/log.rst``."""

    def setUp(self) -> None:
        self.events: dict[str, tuple[str, set[str]]] = {}
        for event in logged_events():
            level, fields = self.events.setdefault(event.text, (event.level, set()))
            self.assertEqual(level, event.level, event.text)
            fields |= event.fields
        text = (ROOT / "docs/log.rst").read_text("utf-8")
        self.entries = {event: (level, more) for event, level, more in _ENTRY.findall(text)}
        self.assertEqual(len(self.entries), len(re.findall(r"(?m)^``", text)))

    def test_both_have_the_same(self) -> None:
        """Each event that is logged is told of, and nothing else is."""
        self.assertGreater(len(self.events), 90)
        self.assertEqual(set(self.events) - set(self.entries), set())
        self.assertEqual(set(self.entries) - set(self.events), set())

    def test_levels_and_fields(self) -> None:
        """Each has its level, and names the fields that its text does not show."""
        for text, (level, fields) in self.events.items():
            told, more = self.entries[text]
            hidden = {name for name in fields if f"{{{name}" not in text}
            self.assertEqual((told, set(re.findall(r"``(\w+)``", more))), (level, hidden), text)
