"""Edits of a YAML file, which else stays as its author wrote it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.config import ConfigurationError
from mta.config.document import Source, parse
from mta.config.edits import REMOVED, with_edits

SOURCE = Source(Path("mta.yaml"), os.environ)

NAMES = st.text("abc-.{}[],:#&*!|>'\"%@` ü", min_size=1, max_size=6).filter(
    lambda name: name == name.strip()
)
SCALARS = NAMES | st.booleans() | st.lists(NAMES, min_size=1, max_size=3)
TREES = st.recursive(SCALARS, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=8)
MAPPINGS = st.dictionaries(NAMES, TREES, min_size=1, max_size=4)


def edited(text: str, **edits: Any) -> str:
    """The text after edits, whose keys are written with two underscores between them."""
    keyed = {tuple(name.split("__")): value for name, value in edits.items()}
    return with_edits(text, parse(text, SOURCE), keyed)


class AdditionTests(SynchronousTestCase):
    """Lines are added, and none is changed."""

    def test_block(self) -> None:
        """New members stand behind those that are there, comments and all."""
        text = "a:  # one\n    b: 1   # two\n    # three\n\n# four\nc: 2\n"
        self.assertEqual(
            edited(text, a__d=["x", "y"], a__e=3, f="g"),
            "a:  # one\n    b: 1   # two\n    d: [x, y]\n    e: 3\n    # three\n\n"
            "# four\nc: 2\nf: g\n",
        )

    def test_new_mappings(self) -> None:
        """What is missing on the way is made, and indented as the rest of the file."""
        self.assertEqual(
            edited("a:\n   b: 1\n", a__c__d=1, a__c__e=2, f__g=3),
            "a:\n   b: 1\n   c:\n      d: 1\n      e: 2\nf:\n   g: 3\n",
        )

    def test_inner_members_first(self) -> None:
        """Where the last member of a mapping grows with it, each line goes where it belongs."""
        self.assertEqual(
            edited("a:\n  b:\n    c: 1", a__b__d=2, a__e=3, f=4),
            "a:\n  b:\n    c: 1\n    d: 2\n  e: 3\nf: 4",
        )

    def test_nothing_yet(self) -> None:
        """A key without a value is an empty mapping."""
        self.assertEqual(edited("a:  # none\nb: 1\n", a__c=2), "a:  # none\n  c: 2\nb: 1\n")

    def test_braces(self) -> None:
        """In a mapping in braces, before the closing one; an empty one needs none."""
        for text, expected in [
            ("a: {b: 1}  # x\n", "a: {b: 1, c: {d: [x, y]}} # x\n"),
            ("a: {}\n", "a:\n  c:\n    d: [x, y]\n"),
            ("a: { b: 1, }\n", "a: {b: 1, c: {d: [x, y]}}\n"),
        ]:
            found = edited(text, a__c__d=["x", "y"])
            self.assertEqual(found, expected)
            self.assertEqual(yaml.safe_load(found)["a"]["c"], {"d": ["x", "y"]})

    def test_text_block(self) -> None:
        """A text of several lines is not cut."""
        text = "a:\n  b: |\n    one\n    two\n\nc: 1\n"
        self.assertEqual(
            yaml.safe_load(edited(text, a__d=2)), {"a": {"b": "one\ntwo\n", "d": 2}, "c": 1}
        )

    def test_list_at_the_end(self) -> None:
        """Behind a list, too."""
        self.assertEqual(edited("a:\n- x\n- y: 1\nb: 2", c=3), "a:\n- x\n- y: 1\nb: 2\nc: 3")
        self.assertEqual(edited("a:\n- x\n- y: 1\n", c=3), "a:\n- x\n- y: 1\nc: 3\n")

    def test_list_of_mappings(self) -> None:
        """Each member has a line of its own; a further one stands behind them."""
        text = "a:\n  b: 1\n"
        found = edited(text, a__k=[{"s": "x", "f": "y"}, {"s": "z"}])
        self.assertEqual(found, text + "  k:\n    - {s: x, f: y}\n    - {s: z}\n")
        text = "a:\n  k:\n  - {s: x}  # one\n  # two\nb: 1\n"
        self.assertEqual(
            edited(text, a__k__1={"s": "y"}), text.replace("# one\n", "# one\n  - {s: y}\n")
        )

    def test_case(self) -> None:
        """Names of domains are the same in any case."""
        text = "A.Example:\n  b: 1\n"
        self.assertEqual(edited(text, **{"a.example__c": 2}), text + "  c: 2\n")

    def test_no_place(self) -> None:
        """What is something else, or stands elsewhere, is not touched."""
        for text, keys, place in [
            ("a: 1\n", "a__b", "1:4"),
            ("a: [1]\n", "a__b", "1:4"),
            ("a: ~\n", "a__b", "1:4"),
            ("x: &x {y: 1}\na: *x\n", "a__b", "2:1"),
        ]:
            error = self.assertRaises(ConfigurationError, edited, text, **{keys: 2})
            self.assertIn(f"mta.yaml:{place}: ", str(error))

    def test_form(self) -> None:
        """Lines that are not edited stay as they are, in whatever form."""
        text = (
            "--- # x\na:\n    b: [ x,\n         y ]   # one\n    'c' : True\n"
            'd:\n  e: ~\n  # two\nf: {g: 1,   h: {}}\ni:\n- 0x1F\n-   k: 1.50\nl: "m"\n'
        )
        self.assertEqual(
            edited(text, a__n=1, l="o"),
            text.replace("'c' : True\n", "'c' : True\n    n: 1\n").replace('"m"', '"o"'),
        )
        self.assertEqual(edited(text, d__n=1), text.replace("e: ~\n", "e: ~\n  n: 1\n"))

    def test_line_ends(self) -> None:
        """Those of the file."""
        self.assertEqual(edited("a:\r\n  b: 1\r\n", a__c=2), "a:\r\n  b: 1\r\n  c: 2\r\n")


class ReplacementTests(SynchronousTestCase):
    """Keys that are there get another value, or go."""

    def test_value(self) -> None:
        """A comment behind it stays, and so do quotes."""
        text = "a:\n  b: 'one'   # why\n  # more\nc: 2\n"
        self.assertEqual(edited(text, a__b="two"), text.replace("one", "two"))
        self.assertEqual(edited(text, c=["x"]), text.replace("2", "[x]"))

    def test_section(self) -> None:
        """What was in it goes; comments behind it are about what comes next."""
        text = "a:\n  b: 1  # why\n  c:\n    d: 2\n\n# four\ne: 3\n"
        self.assertEqual(edited(text, a={"x": [1]}), "a: {x: [1]}\n\n# four\ne: 3\n")
        new = edited(text, a=REMOVED, f__g="h", f__i="~")
        self.assertEqual(new, "\n# four\ne: 3\nf:\n  g: h\n  i: '~'\n")

    def test_removal(self) -> None:
        """A key goes with the comments in its lines; what is not there is gone already."""
        text = "a:\n  b: 1  # one\n  c: 2  # two\n  # three\n# four\nd: 5\n"
        self.assertEqual(edited(text, a__c=REMOVED), text.replace("  c: 2  # two\n", ""))
        self.assertEqual(edited(text, a__b=REMOVED), text.replace("  b: 1  # one\n", ""))
        self.assertEqual(edited(text, d=REMOVED), text.replace("d: 5\n", ""))
        self.assertEqual(edited(text, a__x=REMOVED, y__z=REMOVED), text)
        self.assertEqual(
            edited("a: {b: 1, c: 2}\n", a__b=REMOVED),
            "a: {c: 2}\n",
        )

    def test_members_of_a_list(self) -> None:
        """They are changed, and taken away, by their numbers; comments of others stay."""
        for member, other in (("{s: x, t: old}", "{s: y, t: z}"), ("s: x\n    t: old", "s: y")):
            text = f"a:\n  k:\n  - {member}  # one\n  - {other}  # two\n\n# three\nb: 1\n"
            with self.subTest(member):
                self.assertEqual(edited(text, a__k__0__t="new"), text.replace("old", "new"))
                self.assertEqual(
                    edited(text, a__k__1=REMOVED), text.replace(f"  - {other}  # two\n", "")
                )
                self.assertEqual(
                    edited(text, a__k__0=REMOVED), text.replace(f"  - {member}  # one\n", "")
                )
        self.assertEqual(edited("a: [x, y, z]\n", a__2=REMOVED, a__0="w"), "a: [w, y]\n")
        self.assertEqual(edited("a:\n- {b: 1}\n", a__0__c=2), "a:\n- {b: 1, c: 2}\n")

    def test_the_last_one(self) -> None:
        """A mapping that loses its last key is empty, and no other value."""
        self.assertEqual(edited("a:\n  b: 1\n# c\nd: 2\n", a__b=REMOVED), "a: {}\n# c\nd: 2\n")


class RefusalTests(SynchronousTestCase):
    """What can't be kept is not touched."""

    def test_layout(self) -> None:
        """A mapping in braces over several lines would become one line."""
        for text, line in (
            ("a: {b: 1  # p, q\n  }\n", 2),
            ("x: 1\na: {\n  b: 1,\n  c: 2,\n}\n", 2),
        ):
            error = self.assertRaises(ConfigurationError, edited, text, a__d=3)
            expected = "an edit would lay out these lines anew, expected the change by hand"
            self.assertEqual(str(error), f"mta.yaml:{line}:1: {expected}")

    def test_second_indentation(self) -> None:
        """One edit has the indentation of its place; two in different ones are for a person."""
        text = "a:\n  b: 1\nc:\n    d: 2\n    e: 3\n"
        self.assertEqual(edited(text, c__f=4), f"{text}    f: 4\n")
        self.assertEqual(edited(text, a__f=4), text.replace("b: 1\n", "b: 1\n  f: 4\n"))
        error = self.assertRaises(ConfigurationError, edited, text, a__f=4, c__f=4)
        self.assertIn("by hand", str(error))

    def test_strange_values(self) -> None:
        """What only looks like a date or a number is text to us, and stays as it is."""
        text = "a: {b: 012, c: 1.50, d: yes, e: ~}\n"
        self.assertEqual(edited(text, a__f=1), "a: {b: 012, c: 1.50, d: yes, e: null, f: 1}\n")
        error = self.assertRaises(ConfigurationError, edited, "a: 2024-02-30\nb: 1\n", b=2)
        self.assertIn("mta.yaml:1:1: can't be edited, expected the change by hand", str(error))

    def test_nothing(self) -> None:
        """No edit is no reason to refuse anything."""
        text = "a: 2024-02-30\n"
        self.assertEqual(edited(text), text)

    def test_shared_values(self) -> None:
        """What another place refers to would change there, too."""
        text = "a: &x\n  b: 1\nc: *x\n"
        error = self.assertRaises(ConfigurationError, edited, text, a__d=1)
        self.assertIn("would change more than it names", str(error))


class AnyFileTests(SynchronousTestCase):
    """Files of any form."""

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
        try:
            found = with_edits(text, parse(text, SOURCE), additions)
        except ConfigurationError as error:
            self.assertIn("by hand", str(error))
            self.assertTrue(flow, f"{text}{added}{error}")
            return
        self.assertEqual(yaml.safe_load(found), {"top": before | new, "end": 1})
        if not flow:
            added_lines = set(found.splitlines()) - set(text.splitlines())
            self.assertLessEqual(set(text.splitlines()), set(found.splitlines()), added_lines)
