"""How Sphinx makes the manual."""

import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

from mta import __version__

project = "mta"
author = "the mta authors"
copyright = "2026, the mta authors"
version = release = __version__

exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"mta {version}"
html_static_path = ["_static"]
html_css_files = ["mta.css"]
html_show_sphinx = False
highlight_language = "none"  # most listings are commands, which it would take for Python

# The page, the name, the line below NAME, the authors (they have no section), the section's number.
man_pages = [
    ("tools", "mta", "a mail transfer agent, and its commands", "", 1),
    ("config", "mta.yaml", "the configuration of mta", "", 5),
    ("turn/index", "mta-turn", "mail both ways on one connection", "", 7),
]


def unreleased(app, page, source):
    """Put the news fragments of ``changes/`` in their place on the page of changes."""
    if page == "changes":
        command = ("-m", "towncrier", "build", "--draft", "--version", "Unreleased")
        folder = Path(__file__).parent.parent
        draft = subprocess.run(
            [sys.executable, *command], cwd=folder, capture_output=True, check=True
        )
        source[0] = source[0].replace("UNRELEASED", draft.stdout.decode())


def as_man_page(app, doctree, page):
    """Give a man page the section that comes after NAME, and no links, which paper can't follow.

    The pages of a folder, which its index brings along, become sections beside that one.
    """
    if app.builder.name != "man":
        return
    for link in list(doctree.findall(nodes.reference)):
        link.replace_self(link.children)
    [whole] = [each for each in doctree if isinstance(each, nodes.section)]
    for tree in list(whole.findall(addnodes.start_of_file)):
        wrapper = tree.parent
        whole.extend(tree.children)
        wrapper.remove(tree)
    first = next(whole.findall(nodes.section, include_self=False))
    title, *opening = whole[: whole.index(first)]
    described = nodes.section("", nodes.title("", "Description"), *opening)
    whole[: whole.index(first)] = [title, described]


def setup(app):
    """Sphinx calls this."""
    app.connect("doctree-resolved", as_man_page)
    app.connect("source-read", unreleased)
