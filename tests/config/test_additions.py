"""More members for a YAML file, which stays as its author wrote it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.config import ConfigurationError
from mta.config.additions import with_additions
from mta.config.document import Source, parse

SOURCE = Source(Path("mta.yaml"), os.environ)

NAMES = st.text("abc-.{}[],:#&*!|>'\"%@` ü", min_size=1, max_size=6).filter(
    lambda name: name == name.strip()
)
SCALARS = NAMES | st.booleans() | st.lists(NAMES, min_size=1, max_size=3)
TREES = st.recursive(SCALARS, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=8)
MAPPINGS = st.dictionaries(NAMES, TREES, min_size=1, max_size=4)


def extended(text: str, **additions: Any) -> str:
    """The text with members added, whose keys are written with two underscores between them."""
    keyed = {tuple(name.split("__")): value for name, value in additions.items()}
    return with_additions(text, parse(text, SOURCE), keyed)


class AdditionTests(SynchronousTestCase):
    """Lines are added, and none is changed."""

    def test_block(self) -> None:
        """New members stand behind those that are there, comments and all."""
        text = "a:  # one\n    b: 1   # two\n    # three\n\n# four\nc: 2\n"
        self.assertEqual(
            extended(text, a__d=["x", "y"], a__e=3, f="g"),
            "a:  # one\n    b: 1   # two\n    d: [x, y]\n    e: 3\n    # three\n\n"
            "# four\nc: 2\nf: g\n",
        )

    def test_new_mappings(self) -> None:
        """What is missing on the way is made."""
        self.assertEqual(
            extended("a:\n   b: 1\n", a__c__d=1, a__c__e=2, f__g=3),
            "a:\n   b: 1\n   c:\n     d: 1\n     e: 2\nf:\n  g: 3\n",
        )

    def test_inner_members_first(self) -> None:
        """Where the last member of a mapping grows with it, each line goes where it belongs."""
        self.assertEqual(
            extended("a:\n  b:\n    c: 1", a__b__d=2, a__e=3, f=4),
            "a:\n  b:\n    c: 1\n    d: 2\n  e: 3\nf: 4",
        )

    def test_nothing_yet(self) -> None:
        """A key without a value is an empty mapping."""
        self.assertEqual(extended("a:  # none\nb: 1\n", a__c=2), "a:  # none\n  c: 2\nb: 1\n")

    def test_braces(self) -> None:
        """In a mapping in braces, before the closing one."""
        for text, expected in [
            ("a: {b: 1}  # x\n", "a: {b: 1, c: {d: [x, y]}}  # x\n"),
            ("a: {}\n", "a: {c: {d: [x, y]}}\n"),
            ("a: {b: 1, }\n", "a: {b: 1, c: {d: [x, y]}}\n"),
            ("a: {b: 1  # p, q\n  }\n", "a: {b: 1  # p, q\n  , c: {d: [x, y]}}\n"),
        ]:
            found = extended(text, a__c__d=["x", "y"])
            self.assertEqual(found, expected)
            self.assertEqual(yaml.safe_load(found)["a"]["c"], {"d": ["x", "y"]})

    def test_text_block(self) -> None:
        """A text of several lines is not cut."""
        text = "a:\n  b: |\n    one\n    two\n\nc: 1\n"
        self.assertEqual(
            yaml.safe_load(extended(text, a__d=2)), {"a": {"b": "one\ntwo\n", "d": 2}, "c": 1}
        )

    def test_list_at_the_end(self) -> None:
        """Behind a list, too."""
        self.assertEqual(extended("a:\n- x\n- y: 1\nb: 2", c=3), "a:\n- x\n- y: 1\nb: 2\nc: 3")
        self.assertEqual(extended("a:\n- x\n- y: 1\n", c=3), "a:\n- x\n- y: 1\nc: 3\n")

    def test_case(self) -> None:
        """Names of domains are the same in any case."""
        text = "A.Example:\n  b: 1\n"
        self.assertEqual(extended(text, **{"a.example__c": 2}), text + "  c: 2\n")

    def test_no_place(self) -> None:
        """What is something else, or stands elsewhere, is not touched."""
        for text, keys, place in [
            ("a: 1\n", "a__b", "1:4"),
            ("a: [1]\n", "a__b", "1:4"),
            ("a: ~\n", "a__b", "1:4"),
            ("a: {b: 1}\n", "a__b", "1:5"),
            ("x: &x {y: 1}\na: *x\n", "a__b", "2:1"),
        ]:
            error = self.assertRaises(ConfigurationError, extended, text, **{keys: 2})
            self.assertIn(f"mta.yaml:{place}: ", str(error))

    @given(MAPPINGS, st.booleans(), st.booleans(), MAPPINGS)
    def test_any(
        self, before: dict[str, Any], flow: bool, indent: bool, added: dict[str, Any]
    ) -> None:
        """All that was there is there, and what was added."""
        new = {f"new {name}": value for name, value in added.items()}
        text = yaml.safe_dump(
            {"top": before, "end": 1},
            default_flow_style=flow,
            indent=4 if indent else 2,
            sort_keys=False,
            allow_unicode=True,
        )
        additions = {("top", name): value for name, value in new.items()}
        found = yaml.safe_load(with_additions(text, parse(text, SOURCE), additions))
        self.assertEqual(found, {"top": before | new, "end": 1})
