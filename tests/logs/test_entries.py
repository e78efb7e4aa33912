"""The log, read again."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from mta.logs.entries import Selection, Wanted, entries

ID, OTHER = "1K10RN776CB0S", "1K10RN8BM4APP"
TEXT = f"""\
2026-11-24T14:00:00+0000 info  {ID} accepted <ann@x.example> from 192.0.2.1 by ESMTP: 12 octets
2026-11-24T14:00:01+0000 info  {OTHER} accepted <> from 192.0.2.1 by ESMTP: 13 octets
2026-11-24T14:00:02+0000 error {ID} can't be routed
\tTraceback (most recent call last):
\tKeyError: 'x'
2026-11-24T14:00:03+0000 warn  office: nobody answers; next try in 4 s
2026-11-24T14:00:04+0000 info  {OTHER} delivered bob@office.example by maildir:/m: 250 deferred
2026-11-24T14:00:05+0000 warn  log-in failed from 192.0.2.9 as bob (1 of 10 in 10 minutes)
"""


class EntryTests(SynchronousTestCase):
    """What stands in a line."""

    def test_text(self) -> None:
        """Time, level, message, and the message that it is about."""
        first, _, failed, dialled, *_ = entries(TEXT.splitlines(keepends=True))
        self.assertEqual((first.time, first.level), ("2026-11-24T14:00:00+0000", "info"))
        self.assertEqual(first.queue_id, ID)
        self.assertEqual(first.event, first.message.removeprefix(f"{ID} "))
        self.assertEqual(first.at, 1795528800.0)
        self.assertEqual(failed.message.count("\n"), 2)
        self.assertEqual((dialled.queue_id, dialled.event), ("", dialled.message))

    def test_json(self) -> None:
        """All fields stay."""
        fields = {"time": "2026-11-24T14:00:00+0000", "level": "info", "message": "x", "hop": "y"}
        [found] = entries([f"Nov 24 host mta: {json.dumps(fields)}\n"])
        self.assertEqual(dict(found.fields), fields)

    def test_something_else(self) -> None:
        """A line of another program is an entry without a time."""
        [found] = entries(["{odd\n"])
        self.assertEqual((found.time, found.message, found.at), ("", "{odd", float("inf")))


class SelectionTests(SynchronousTestCase):
    """Which entries are wanted."""

    def assert_chosen(self, numbers: list[int], **parts: object) -> None:
        """Of the entries above, these are wanted."""
        selection = Selection(Wanted(**parts))  # type: ignore[arg-type]
        found = list(entries(TEXT.splitlines(keepends=True)))
        chosen = [number for number, entry in enumerate(found) if selection.has(entry)]
        self.assertEqual(chosen, numbers, parts)

    def test_parts(self) -> None:
        """Each part of a filter, and several together."""
        self.assert_chosen([0, 1, 2, 3, 4, 5])
        self.assert_chosen([0, 2], queue_id=ID)
        self.assert_chosen([3], peer="office")
        self.assert_chosen([2], level="error")
        self.assert_chosen([2, 3, 5], level="warn")
        self.assert_chosen([4], forward_path="Bob@office.example")
        self.assert_chosen([], forward_path="ob@office.example")
        self.assert_chosen([4], domain="office.example")
        self.assert_chosen([], domain="office.exam")
        self.assert_chosen([0], domain="x.example")
        self.assert_chosen([5], event="log-in failed")
        self.assert_chosen([0, 1], event="accepted")
        self.assert_chosen([], event="deferred")
        self.assert_chosen([4, 5], since=1795528804.0)
        self.assert_chosen([2], queue_id=ID, level="error")

    def test_sender(self) -> None:
        """All that becomes of its messages, not only how they came."""
        self.assert_chosen([0, 2], reverse_path="Ann@x.example")
        self.assert_chosen([1, 4], reverse_path="")
        self.assert_chosen([], reverse_path="an@x.example")
