"""Build in a fresh folder, and the same archives from the same sources.

All else about the package stands in setup.cfg.
"""

import gzip
import os
import tarfile
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build import build
from setuptools.command.sdist import sdist


class FreshBuild(build):
    """Builds in a temporary folder: what an earlier build left must not get in."""

    def initialize_options(self) -> None:
        """Choose the folder; ``--build-base`` may name another."""
        super().initialize_options()
        self._folder = tempfile.TemporaryDirectory(prefix="mta-build-")
        self.build_base = self._folder.name


class ReproducibleSdist(sdist):
    """Makes an archive whose octets depend on its files, and on SOURCE_DATE_EPOCH, alone."""

    def make_archive(
        self,
        base_name: str,
        format: str,
        root_dir: str | None = None,
        base_dir: str | None = None,
        owner: str | None = None,
        group: str | None = None,
    ) -> str:
        """Write the files of `base_dir` in order, with one time and no owner."""
        if format != "gztar" or base_dir is None:
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)
        time = int(os.environ.get("SOURCE_DATE_EPOCH", "315532800"))  # 1980, as in a wheel

        def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = time
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        name = f"{base_name}.tar.gz"
        with (
            Path(name).open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=time) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in (Path(base_dir), *sorted(Path(base_dir).rglob("*"))):
                archive.add(path, recursive=False, filter=plain)
        return name


setup(cmdclass={"build": FreshBuild, "sdist": ReproducibleSdist})
