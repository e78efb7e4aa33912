"""The news fragments in ``changes/``, of which towncrier makes the change log."""

from __future__ import annotations

import re
import tomllib

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT

KINDS = {
    kind["directory"]
    for kind in tomllib.loads((ROOT / "towncrier.toml").read_text())["tool"]["towncrier"]["type"]
}


class FragmentTests(SynchronousTestCase):
    """Each is one item of the next section."""

    def test_kinds(self) -> None:
        """The page for authors lists the kinds that there are."""
        page = (ROOT / "changes/README.rst").read_text()
        self.assertEqual(KINDS, set(re.findall(r"^``(\w+)``  ", page, re.MULTILINE)))

    def test_texts(self) -> None:
        """Each has a name that says what kind it is, and sentences."""
        for path in (ROOT / "changes").iterdir():
            if path.name != "README.rst":
                words, kind, end = path.name.split(".")
                self.assertRegex(words, r"^\+[a-z0-9-]+$")
                self.assertIn(kind, KINDS)
                self.assertEqual(end, "rst")
                self.assertRegex(path.read_text("utf-8"), r"\A\S[^\t]*[.)]\n\Z", path.name)
