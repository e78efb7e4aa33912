"""``docs/security.rst``: what it claims is shown by the tests that its comments name."""

from __future__ import annotations

import re

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Hop
from mta.settings import Settings
from mta.users.roster import PasswordHash
from tests.processes import ROOT

HEADING = re.compile(r"^(.+)\n-+\n", re.MULTILINE)
COMMENT = re.compile(r"^ *\.\. (?:D|tests)\.\S+(?:\n +(?:D|tests)\.\S+)*$", re.MULTILINE)
ITEM = re.compile(r"^(?=- |   \* - )", re.MULTILINE)
DIRECTIVE = re.compile(r"\.\. [a-z-]+::")


def claims(text: str) -> list[str]:
    """The list items, table rows and paragraphs of all sections, each with its comment."""
    sections = HEADING.split(text)[2::2]
    return [claim for section in sections for claim in _claims(section)]


def _claims(section: str) -> list[str]:
    before, *items = ITEM.split(section)
    if items:
        is_table = ".. list-table::" in before
        return items[1:] if is_table else items
    found: list[str] = []
    for block in re.split(r"\n\n+", before.strip()):
        if COMMENT.fullmatch(block) and found:
            found[-1] += f"\n\n{block}"
        elif not DIRECTIVE.fullmatch(block):
            found.append(block)
    return found


class ClaimTests(SynchronousTestCase):
    """Every claim of the page."""

    text = (ROOT / "docs/security.rst").read_text("utf-8")

    def test_each_names_its_tests(self) -> None:
        """None is without one, and each of them exists."""
        found = claims(self.text)
        self.assertGreater(len(found), 70)
        for claim in found:
            comments = COMMENT.findall(claim)
            self.assertEqual(1, len(comments), claim)
            self.assertTrue(claim.rstrip().endswith(comments[0]), claim)
            for name in re.findall(r"\S+", comments[0].replace("..", "", 1)):
                whole = re.sub(r"^D\.", "tests.dialogues.test_receiving.DialogueTests.", name)
                self.assertTrue(callable(namedAny(whole)), name)

    def test_readers_do_not_see_them(self) -> None:
        """They are for whoever changes the program, and no part of the page."""
        self.assertNotIn("tests.", COMMENT.sub("", self.text).partition("\nWithout a word\n")[2])


class SecretTests(SynchronousTestCase):
    """Values with secrets, which the log or a traceback may show."""

    def test_not_shown(self) -> None:
        """They are no part of what is shown of them."""
        secret = "not-to-be-seen-0815"
        values = (
            Hop(Agent.SMTP, "smart.example", user="us", secret=secret),
            Settings("mail.example", database=f"postgresql://mta:{secret}@db.example/mta"),
            PasswordHash(b"salt", secret.encode()),
        )
        for value in values:
            self.assertNotIn(secret, f"{value!r} {value}")
