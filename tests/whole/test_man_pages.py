"""The man pages that Sphinx makes of the manual: mta(1), mta.yaml(5), mta-turn(7)."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT, need_program, temporary_folder

PAGES = {"mta.1", "mta.yaml.5", "mta-turn.7"}
# Of groff about narrow columns: lintian leaves them out, too.
_ABOUT_COLUMNS = ("can't break line", "cannot adjust line")


def ended(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command at a width of 80 columns."""
    environment = os.environ | {"MANWIDTH": "80", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


class ManPageTests(SynchronousTestCase):
    """The man pages, as `make docs` makes them."""

    def setUp(self) -> None:
        if find_spec("sphinx") is None:
            self.skipTest("Sphinx is not installed: make docs installs it")
        self.folder = temporary_folder(self)
        trees = temporary_folder(self)
        options = ("--quiet", "--fail-on-warning", "-b", "man", "-d", trees)
        made = ended(sys.executable, "-m", "sphinx", *options, ROOT / "docs", self.folder)
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        self.pages = sorted(path for path in self.folder.iterdir() if path.is_file())

    def test_pages(self) -> None:
        """There are three, and no reader meets a link that leads nowhere, or a fault of form."""
        self.assertEqual({page.name for page in self.pages}, PAGES)
        man, mandoc = need_program(self, "man"), need_program(self, "mandoc")
        for page in self.pages:
            with self.subTest(page.name):
                shown = ended(man, "--warnings", "-E", "UTF-8", "-l", page)
                faults = shown.stderr.splitlines()
                odd = [line for line in faults if not line.endswith(_ABOUT_COLUMNS)]
                self.assertEqual((shown.returncode, odd), (0, []))
                self.assertRegex(shown.stdout, r"\nNAME\n +mta\S* - [^\n]*\n\nDESCRIPTION\n")
                self.assertNotRegex(shown.stdout, r"\w <>")
                linted = ended(mandoc, "-Tlint", "-Werror", page)
                self.assertEqual((linted.returncode, linted.stdout), (0, ""))
