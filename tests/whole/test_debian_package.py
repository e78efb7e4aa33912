"""The Debian package, built, and tried in a fresh Debian: ``debian/test`` has the steps."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import mta
from tests.processes import ROOT, need_program, temporary_folder

MIRROR = "http://deb.debian.org/debian"
_LEFT_OUT = shutil.ignore_patterns(
    *("__pycache__", "dropin.cache", ".*", "_trial_temp*", "_build", "*.egg-info", "var", "dist")
)


def run(
    *command: str | Path, folder: Path = ROOT, environment: Mapping[str, str] | None = None
) -> str:
    """Run a command; returns what it said.  AssertionError, with that, where it fails."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if ended.returncode:
        raise AssertionError(f"{command}: exit status {ended.returncode}\n{ended.stdout}")
    return ended.stdout


class ChangelogTests(SynchronousTestCase):
    """Debian's change log."""

    def test_version(self) -> None:
        """Its first entry is of this version."""
        first = (ROOT / "debian/changelog").read_text().splitlines()[0]
        self.assertEqual(first, f"mailturn ({mta.__version__}) unstable; urgency=medium")


class PackageTests(SynchronousTestCase):
    """The packages, on the Debian that these tests run on."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root can make a system in a folder")
        for program in ("debootstrap", "dpkg-buildpackage", "dh", "unshare"):
            need_program(self, program)
        if find_spec("sphinx") is None:
            self.skipTest("Sphinx is not installed: make docs installs it")
        release = platform.freedesktop_os_release()
        if release["ID"] != "debian":
            self.skipTest("not on Debian")
        self.release = release["VERSION_CODENAME"]
        self.folder = temporary_folder(self)

    def built(self) -> Path:
        """The folder with the packages."""
        source = self.folder / "built" / "source"
        shutil.copytree(ROOT, source, ignore=_LEFT_OUT)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "COVERAGE_", "MAKE"))
        }
        environment = kept | {"SPHINX": f"{sys.executable} -m sphinx"}
        # Without the compiler that every build is said to need: nothing is compiled.
        build = ("dpkg-buildpackage", "--no-sign", "--build=binary", "--no-check-builddeps")
        run(*build, folder=source, environment=environment)
        shutil.rmtree(source)
        return source.parent

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

    def test_life(self) -> None:
        """It is installed, started, upgraded, removed and purged, and no mail is lost."""
        system = self.folder / "system"
        options = ("--variant=minbase", "--include=python3,adduser")
        log = self.folder / "debootstrap.log"
        with log.open("w") as said:
            making = subprocess.Popen(
                ["debootstrap", *options, self.release, system, MIRROR],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        try:
            packages = self.built()
            newer = self.newer(packages)
        finally:
            status = making.wait()
        self.assertEqual(status, 0, log.read_text())
        said = run("sh", ROOT / "debian/test", system, packages, newer)
        self.assertTrue(said.endswith("== done\n"), said)
