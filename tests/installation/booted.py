"""A system that systemd has booted: this one, under a layer of its own, in namespaces.

What is installed and changed in it is in memory, and gone after the test.  It takes root, on Linux.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.processes import DEADLINE, ROOT, need_program, temporary_folder, wait_until

SYSTEMD = Path("/lib/systemd/systemd")
PROGRAM = "/opt/mta/bin"
PYTHON = f"{PROGRAM}/python"

# Interpreter, packages and source are outside of the folders that units hide.  Its units are those
# that a test puts there: others would change the kernel that we share.
_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$0"
cd "$0"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" root
cd root
rm -rf etc/systemd/system/* usr/lib/systemd/system/*.wants usr/lib/systemd/system-generators
rm -rf etc/mta opt/mta var/spool/mta var/lib/mta var/log/mta
for each in python source packages mta/bin; do mkdir -p "opt/$each"; done
mount --bind "$1" opt/python
mount --bind "$2" opt/source
mount --bind "$3" opt/packages
mkdir -p usr/lib/modules root
printf '[Unit]\\nDefaultDependencies=no\\n' > etc/systemd/system/alone.target
mount --rbind /dev dev
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for each in run tmp; do mount -t tmpfs tmpfs "$each"; done
mkdir run/old
pivot_root . run/old
umount --lazy /run/old
ip link set lo up
export container=other
exec "$4" --system --unit=alone.target --log-target=null --show-status=no
"""
_NAMESPACES = ("--mount", "--net", "--pid", "--cgroup", "--ipc", "--uts")
_LAUNCHER = f"""#!/bin/sh
export PYTHONPATH=/opt/source:/opt/packages PYTHONDONTWRITEBYTECODE=1
export LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/python{sys.version_info.major}.{sys.version_info.minor} """
_CODE = {
    "python": "",
    "twistd": '-c "from twisted.scripts.twistd import run; run()" ',
    "mta": '-c "import sys; from mta.commands import main; sys.exit(main())" ',
}


class BootedSystem:
    """The system, with the program in `PROGRAM`; the test is skipped where none boots."""

    def __init__(self, case: SynchronousTestCase) -> None:
        if os.geteuid() != 0 or not SYSTEMD.exists():
            case.skipTest("no root, or no systemd")
        unshare = need_program(case, "unshare")
        where = str(temporary_folder(case)), sys.base_prefix, str(ROOT)
        packages = sysconfig.get_path("purelib")
        command = [unshare, *_NAMESPACES, "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
        self._holder = subprocess.Popen(
            [*command, _BOOT, *where, packages, str(SYSTEMD)], stderr=subprocess.PIPE, text=True
        )
        case.addCleanup(self._end)
        wait_until(self._has_booted, "systemd is up")
        for name, code in _CODE.items():
            path = self.path(f"{PROGRAM}/{name}")
            path.write_text(f'{_LAUNCHER}{code}"$@"\n')
            path.chmod(0o755)

    def run(self, *command: str) -> str:
        """Run a command there as root; returns what it printed.  AssertionError where it fails."""
        ended = self._run(*command)
        if ended.returncode:
            raise AssertionError(f"{command}: {ended.returncode}\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def path(self, path: str) -> Path:
        """A file of that system, seen from here."""
        return Path(f"/proc/{self._first()}/root{path}")

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", f"--target={self._first()}", *_NAMESPACES]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            [*enter, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10 * DEADLINE,
            check=False,
        )

    def _has_booted(self) -> bool:
        if self._holder.poll() is not None:
            raise SkipTest(f"systemd does not boot here: {self._holder.communicate()[1]}")
        if not self._first():
            return False
        return self._run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

    def _first(self) -> str:
        """The id of its first process; empty: there is none yet."""
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        return children.read_text().strip()

    def _end(self) -> None:
        self._holder.kill()
        self._holder.communicate()
