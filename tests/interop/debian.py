"""A Debian machine to install on: this system as it is, under a layer of its own, in a namespace.

What is installed and changed in it is in memory, and gone after the test.  systemd can't run there:
`systemctl.py` plays its part, and starts the server of the real unit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.interop.network import Network
from tests.processes import need_program, temporary_folder, wait_until

MAX_TIME = 120  # seconds: a command of the tutorial
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of programs that this system may have and a fresh one does not.
_REMOVED = ("etc/dovecot", "etc/mta", "usr/local/bin/mta", "usr/local/bin/mta-sendmail")
_SYSTEMCTL = Path(__file__).with_name("systemctl.py")
_BOOT = """
mount -t tmpfs tmpfs "$0" && cd "$0" && mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" root
cd root && mount -t proc proc proc && mount --rbind /dev dev
mount -t tmpfs tmpfs run && mount -t tmpfs tmpfs tmp && mkdir -p run/systemd/system
rm -rf "$@" etc/resolv.conf var/spool/mta var/mail && mkdir var/mail
printf '127.0.0.1 localhost\n' > etc/hosts
echo is up
exec sleep infinity
"""


class Debian:
    """A machine in a namespace of a network, with its files and processes for itself."""

    def __init__(self, case: SynchronousTestCase, network: Network, name: str, dns: str) -> None:
        unshare = need_program(case, "unshare")
        folder = temporary_folder(case)
        command = [*network.inside(name), unshare, "--mount", "--uts", "--pid", "--fork"]
        command += ["--kill-child", "sh", "-ec", _BOOT, str(folder), *_REMOVED]
        self._holder = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        case.addCleanup(self._end)
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():
            _, errors = self._holder.communicate()
            raise SkipTest(f"no machines in namespaces here: {errors}")
        self.root = Path(f"/proc/{self._first()}/root") / folder.relative_to("/") / "root"
        (self.root / "etc/resolv.conf").write_text(f"nameserver {dns}\n")
        (self.root / "etc/hostname").write_text(f"{name}\n")
        shutil.copy(_SYSTEMCTL, self.root / "usr/bin/systemctl")
        (self.root / "usr/bin/systemctl").chmod(0o755)

    def run(self, command: str, environment: Mapping[str, str] | None = None) -> str:
        """Run a line of a shell as root; returns what it printed.

        AssertionError where it fails.
        """
        enter = ["nsenter", f"--target={self._first()}", "--mount", "--uts", "--net", "--pid"]
        ended = subprocess.run(
            [*enter, "chroot", self._inner_root, "sh", "-c", command],
            env={"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MAX_TIME,
            check=False,
        )
        if ended.returncode:
            raise AssertionError(f"{command}: {ended.returncode}\n{ended.stdout}")
        return ended.stdout

    @property
    def _inner_root(self) -> str:
        return "/" + str(self.root).partition("/root/")[2]

    def _first(self) -> int:
        """The id of the first process of the machine."""
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        return int(wait_until(children.read_text, "the machine is up").split()[0])

    def _end(self) -> None:
        self._holder.kill()
        self._holder.communicate()


def wheels(case: SynchronousTestCase, wheel: Path) -> Path:
    """The wheel with all that it needs, for a machine that reaches no package index."""
    folder = temporary_folder(case)
    python = shutil.which("python3", path=PATH) or case.skipTest("there is no python3")
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True, capture_output=True)
    command = [folder / "venv/bin/pip", "download", "--quiet", "--dest", folder / "wheels", wheel]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=_plain())
    if ended.returncode:
        raise SkipTest(f"no package index: {ended.stderr.strip().splitlines()[-1]}")
    return folder / "wheels"


def _plain() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
