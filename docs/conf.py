"""How Sphinx makes the manual."""

from mta import __version__

project = "mta"
author = "the mta authors"
copyright = "2026, the mta authors"
version = release = __version__

exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "A mail transfer agent whose connections carry mail both ways"}
