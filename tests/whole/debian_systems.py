"""Systems of a release of Debian, in folders, to build and to try packages in.

Only root can make them, with debootstrap and a mirror; elsewhere the tests that need one are
skipped.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.processes import ROOT

MIRROR = "http://deb.debian.org/debian"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
BUILD_TOOLS = ("python3-venv", "debhelper", "dpkg-dev", "ca-certificates")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


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


def need_systems() -> None:
    """Skip the test where no system can be made."""
    if os.geteuid() != 0:
        raise SkipTest("only root can make a system in a folder")
    for program in ("debootstrap", "unshare"):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            raise SkipTest(f"{program} is not installed")


@cache
def workshop() -> Path:
    """A folder that is gone when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="mta-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def fresh(release: str) -> Path:
    """A system with Python and nothing more; whoever changes it takes a copy."""
    system = workshop() / f"{release}-fresh"
    run("debootstrap", "--variant=minbase", "--include=python3,adduser", release, system, MIRROR)
    return system


@cache
def builder(release: str) -> Path:
    """A system with all that builds a package."""
    system = copied(fresh(release), workshop() / f"{release}-builder")
    install = "apt-get update -qq && apt-get install -qq -y --no-install-recommends"
    inside(system, f"{install} {' '.join(BUILD_TOOLS)}")
    # The package index may be behind a proxy that has an authority of its own.
    shutil.copy(AUTHORITIES, system / AUTHORITIES.relative_to("/"))
    return system


def copied(system: Path, to: Path) -> Path:
    """A copy of a system."""
    run("cp", "-a", system, to)
    return to


def inside(system: Path, command: str) -> str:
    """Run a line of a shell in a system, which reaches the network."""
    shutil.copy("/etc/resolv.conf", system / "etc/resolv.conf")
    environment = {
        "PATH": PATH,
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "PIP_CERT": str(AUTHORITIES),
    }
    script = 'mount -t proc proc "$0/proc" && exec chroot "$0" sh -c "$1"'
    shell = ("unshare", "--mount", "--pid", "--fork", "sh", "-c", script, str(system), command)
    return run(*shell, environment=environment)
