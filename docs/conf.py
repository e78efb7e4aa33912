"""How Sphinx makes the manual."""

import subprocess
import sys
from pathlib import Path

from mta import __version__

project = "mta"
author = "the mta authors"
copyright = "2026, the mta authors"
version = release = __version__

exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "A mail transfer agent whose connections carry mail both ways"}


def unreleased(app, page, source):
    """Put the news fragments of ``changes/`` in their place on the page of changes."""
    if page == "changes":
        command = ("-m", "towncrier", "build", "--draft", "--version", "Unreleased")
        folder = Path(__file__).parent.parent
        draft = subprocess.run(
            [sys.executable, *command], cwd=folder, capture_output=True, check=True
        )
        source[0] = source[0].replace("UNRELEASED", draft.stdout.decode())


def setup(app):
    """Sphinx calls this."""
    app.connect("source-read", unreleased)
