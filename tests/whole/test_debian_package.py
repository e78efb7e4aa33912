"""The Debian package, built, and tried in a fresh Debian: ``debian/test`` has the steps."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import mta
from tests.processes import ROOT, need_program, temporary_folder
from tests.whole.debian_systems import builder, copied, fresh, inside, need_systems, run

TRIXIE = "trixie"
_BUILD = ("dpkg-buildpackage", "--no-sign", "--build=binary", "--no-check-builddeps")
_LEFT_OUT = shutil.ignore_patterns(
    *("__pycache__", "dropin.cache", ".*", "_trial_temp*", "_build", "*.egg-info", "var", "dist")
)


class ChangelogTests(SynchronousTestCase):
    """Debian's change log."""

    def test_version(self) -> None:
        """Its first entry is of this version."""
        first = (ROOT / "debian/changelog").read_text().splitlines()[0]
        self.assertEqual(first, f"mailturn ({mta.__version__}) unstable; urgency=medium")


class PackageTests(SynchronousTestCase):
    """The packages, on the Debian that these tests run on, and on the one after it."""

    def setUp(self) -> None:
        need_systems()
        for program in ("dpkg-buildpackage", "dh", "lintian"):
            need_program(self, program)
        self.folder = temporary_folder(self)

    def source(self, folder: Path) -> Path:
        """A copy of the sources."""
        return Path(shutil.copytree(ROOT, folder / "source", ignore=_LEFT_OUT))

    def built_here(self) -> Path:
        """The folder with the packages, built on this system."""
        if find_spec("sphinx") is None:
            self.skipTest("Sphinx is not installed: make docs installs it")
        source = self.source(self.folder / "built")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "COVERAGE_", "MAKE"))
        }
        environment = kept | {"SPHINX": f"{sys.executable} -m sphinx"}
        # Without the compiler that every build is said to need: nothing is compiled.
        run(*_BUILD, folder=source, environment=environment)
        shutil.rmtree(source)
        return source.parent

    def built_inside(self, system: Path) -> Path:
        """The folder with the packages, built in a system from nothing but its own."""
        folder = system / "srv/built"
        source = self.source(folder)
        inside(system, f"cd /srv/built/source && {' '.join(_BUILD)}")
        shutil.rmtree(source)
        return folder

    def newer(self, packages: Path) -> Path:
        """The same packages in a version that is higher."""
        folder = self.folder / "newer"
        folder.mkdir()
        for package in packages.glob("*.deb"):
            content = self.folder / package.stem
            run("dpkg-deb", "--raw-extract", package, content)
            control = content / "DEBIAN/control"
            old = f"Version: {mta.__version__}"
            control.write_text(control.read_text().replace(f"\n{old}\n", f"\n{old}+1\n"))
            run("dpkg-deb", "-Znone", "--build", content, folder / package.name)
            shutil.rmtree(content)
        return folder

    def live(self, release: str, packages: Path) -> None:
        """Install, start, upgrade, remove and purge: no mail is lost."""
        run("lintian", "--allow-root", "--fail-on", "error", *packages.glob("*.deb"))
        system = copied(fresh(release), self.folder / "system")
        said = run("sh", ROOT / "debian/test", system, packages, self.newer(packages))
        self.assertTrue(said.endswith("== done\n"), said)

    def test_this_release(self) -> None:
        """The life of a package on the release of Debian that this is."""
        release = platform.freedesktop_os_release()
        if release["ID"] != "debian":
            self.skipTest("not on Debian")
        self.live(release["VERSION_CODENAME"], self.built_here())

    def test_debian_13(self) -> None:
        """The same on Debian 13, where it is built as well."""
        self.live(TRIXIE, self.built_inside(builder(TRIXIE)))
