"""``mta init`` as root, on a host of its own: its files are copies, its network is empty.

The copies are overlays in a mount namespace, so nothing of this machine is touched.  It takes root,
on Linux; elsewhere these tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.processes import DEADLINE, need_program, source_environment, temporary_folder

# All folders that an installation writes to; the others of this machine can't be written to.  The
# server's user may go where this interpreter and this source are.
_HOST = """
set -e
folder=$0
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"
for each in etc usr var opt root; do
    mkdir "$folder/$each" "$folder/$each.work"
    mount -t overlay -o "lowerdir=/$each,upperdir=$folder/$each,workdir=$folder/$each.work" \
        overlay "/$each"
done
mount -t tmpfs tmpfs /run
chmod o+x /root
rm -rf /etc/mta /var/spool/mta /etc/systemd/system/mta.service /etc/letsencrypt
ip link set lo up
ip address add 2001:db8::1/128 dev lo
exec "$@"
"""

# What is done on the host: it prints what is said, and fails where something is wrong.
_PROGRAM = """
import os, pwd, socket, subprocess, sys, time
from pathlib import Path
from mta.commands import main
from mta.installation import proof, roles
from mta.config import load

OPTIONS = ("--yes", "--offline", "--hostname", "mail.example.com", "--mailbox", "alice")
print(roles.why_unreachable(Path(sys.argv[1]), sys.executable))
holder = socket.create_server(("127.0.0.1", 587))
assert main(["init", "server", "--dry-run", "--program", sys.argv[1], *OPTIONS]) == 0
holder.close()
assert main(["init", "server", "--program", sys.argv[1], *OPTIONS]) == 0
server = pwd.getpwnam("mta")
config = Path("/etc/mta/mta.yaml")
command = [sys.argv[1] + "/twistd", "--nodaemon", "--pidfile=", "mta", "--config", str(config)]
with proof.running(command, Path("/")):
    proof.send(25, "mail.example.com", "alice@example.com", Path("/var/mail/example.com/alice"))
    print("running")
    assert main(["init", "server", "--program", sys.argv[1], "--offline"]) == 0
[mail] = Path("/var/mail/example.com/alice/new").iterdir()
print(config.read_text(), mail.read_text())
assert mail.stat().st_uid == server.pw_uid, mail.stat()
"""


class HostTests(SynchronousTestCase):
    """A host that root installs on."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("namespaces need root")
        for program in ("unshare", "useradd", "ip"):
            need_program(self, program)
        program = Path(sys.executable).parent
        if not (program / "twistd").exists():
            self.skipTest(f"no twistd in {program}")
        self.program = program

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the host."""
        where = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc")
        return subprocess.run(
            (*where, "sh", "-c", _HOST, str(temporary_folder(self)), *command),
            env=source_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE * 4,
            check=False,
        )

    def test_from_nothing_to_a_message(self) -> None:
        """Users, owners, a start as root, a message; then nothing is left to do."""
        if self.inside("true").returncode:
            raise SkipTest("no overlays in a mount namespace here")
        ended = self.inside(sys.executable, "-c", _PROGRAM, str(self.program))
        first, _, second = ended.stdout.partition("running\n")
        if "can't run" in first.splitlines()[0]:
            raise SkipTest(first.splitlines()[0])
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        self.assertIn("listens on port 587: the server can't start", first)
        self.assertIn("done: made user and group mta\n", first)
        self.assertIn("/etc/mta/mta.yaml: ok\n", first)
        self.assertIn("nothing to do: all is as it should be\n", second)
        self.assertNotIn("listens on port", second)
        # One socket for IPv6 and IPv4, and clients by their own addresses.
        self.assertIn("endpoint: tcp6:25 ", second)
        self.assertIn("Received: from mail.example.com ([127.0.0.1])", second)
