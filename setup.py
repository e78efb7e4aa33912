"""Builds in a folder of its own: what an earlier build left must not get into a later one.

All else about the package stands in setup.cfg.
"""

import tempfile

from setuptools import setup
from setuptools.command.build import build


class FreshBuild(build):
    """Builds in a temporary folder, gone when the process ends."""

    def initialize_options(self) -> None:
        """Choose the folder; ``--build-base`` may name another."""
        super().initialize_options()
        self._folder = tempfile.TemporaryDirectory(prefix="mta-build-")
        self.build_base = self._folder.name


setup(cmdclass={"build": FreshBuild})
