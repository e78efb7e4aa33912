"""The manual against the command line and the tree: what it names is there, and all of it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from mta.commands import whole_parser
from tests.processes import ROOT

PAGES = [*(ROOT / "docs").rglob("*.rst"), *ROOT.glob("*.rst")]
# Options that every command has, or that a page explains once for all.
COMMON = {"-h", "--help", "-c", "--config"}


def commands(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, set[str]]]:
    """Each command that does something, with the options that its help shows."""
    groups = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    for group in groups:
        for name, inner in group.choices.items():
            yield from commands(inner, f"{path} {name}")
    if not groups:
        shown = [each for each in parser._actions if each.help != argparse.SUPPRESS]
        yield path, {word for action in shown for word in action.option_strings}


class ToolsTests(SynchronousTestCase):
    """The page about the tools."""

    def setUp(self) -> None:
        self.text = (ROOT / "docs/tools.rst").read_text("utf-8")

    def test_every_command(self) -> None:
        """Every command is there, as ``mta a b``, ``mta a b|c`` or ``mta a c``, and each option."""
        known = {
            path
            for before, last in re.findall(r"``mta((?: [a-z]+)?) ([a-z|]+)", self.text)
            for path in (f"mta{before}", *(f"mta{before} {word}" for word in last.split("|")))
        }
        found = dict(commands(whole_parser(), "mta"))
        self.assertGreater(len(found), 20)
        self.assertEqual(set(found) - known, set())
        options = {option for each in found.values() for option in each} - COMMON
        named = set(re.findall(r"(?<![\w-])--?[A-Za-z][a-z0-9-]*", self.text))
        # -bs and -bp are -b.
        told = {each for each in options if any(name.startswith(each) for name in named)}
        self.assertEqual(options - told, set())

    def test_nothing_that_is_gone(self) -> None:
        """Each option that is named is one of some command, or of another program."""
        found = {option for _, each in commands(whole_parser(), "mta") for option in each}
        entries = re.findall(r"^``mta .+``$", self.text, re.MULTILINE)
        named = set(re.findall(r"--[a-z][a-z0-9-]+", " ".join(entries)))
        self.assertEqual(named - found, set())


class FileTests(SynchronousTestCase):
    """The files that the pages name."""

    def test_they_exist(self) -> None:
        """A file or folder of ours that stands in a page is in the tree."""
        missing = []
        for page in PAGES:
            text = page.read_text("utf-8")
            # Not /etc/mta or /var/spool/mta; NAME is free.
            for name in re.findall(r"(?<![\w/.~-])(?:mta|tests|bench|docs|etc)/[\w/.-]*\w", text):
                if "NAME" not in name and not (ROOT / name).exists():
                    missing.append(f"{page.name}: {name}")
        self.assertEqual(missing, [])

    def test_names(self) -> None:
        """A class, function or constant that the pages for developers name is in the source."""
        folders = ("mta", "tests", "bench", "twisted")
        words = {"camelCase", "snake_case"}
        for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
            words.update((path.stem, *re.findall(r"\w+", path.read_text("utf-8"))))
        missing = []
        for page in ("develop", "design", "flow", "hosts"):
            text = (ROOT / f"docs/{page}.rst").read_text("utf-8")
            for name in re.findall(r"``(?:[\w.]+\.)?(\w+)``", text):
                if name not in words and "NAME" not in name:
                    missing.append(f"{page}: {name}")
        self.assertEqual(missing, [])

    def test_of_the_ways(self) -> None:
        """Each step of ``docs/flow.rst`` names modules that there are."""
        text = (ROOT / "docs/flow.rst").read_text("utf-8")
        rooms = "access|commands|delivery|maildrop|notices|peers|queue|smtp|spool"
        names = set(re.findall(rf"\b(?:{rooms})/[a-z_]+\.py", text))
        self.assertGreater(len(names), 20)
        self.assertEqual({name for name in names if not (ROOT / "mta" / name).exists()}, set())
