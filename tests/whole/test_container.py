"""The container: ``Dockerfile`` and ``compose.yaml``, linted, built and tried."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT, Server, configuration, need_program, temporary_folder
from tests.whole.debian_systems import AUTHORITIES, builder, need_systems, run

DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["mta"]
HEALTH_PORT = "9825"


def instructions(name: str) -> list[str]:
    """What follows each instruction of that name, continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", "")
    return re.findall(rf"(?m)^{name} +(.*)$", joined)


class DockerfileTests(SynchronousTestCase):
    """The image."""

    def test_lint(self) -> None:
        """Hadolint finds nothing."""
        beside = str(Path(sys.executable).parent)
        hadolint = shutil.which("hadolint", path=beside) or shutil.which("hadolint")
        if hadolint is None:
            self.skipTest("hadolint is not installed")
        linted = subprocess.run(
            [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
        )
        self.assertEqual((linted.returncode, linted.stdout), (0, ""), linted.stderr)

    def test_sources(self) -> None:
        """All that is copied into it is there, and enough for a build."""
        copied = [words.split() for words in instructions("COPY") if "--from" not in words]
        names = {name for *sources, _ in copied for name in sources}
        self.assertEqual({name for name in names if not (ROOT / name).exists()}, set())
        needed = {"setup.cfg", "setup.py", "pyproject.toml", "README.rst", "LICENSE"}
        self.assertEqual(names, needed | {"mta", "twisted"})

    def test_rights(self) -> None:
        """The server is no root, and its user has the number that the volumes know."""
        [user] = instructions("USER")
        number = user.partition(":")[0]
        self.assertIn(f"--uid {number} ", DOCKERFILE)
        self.assertIn(f"--gid {number} ", DOCKERFILE)


class ImageTests(SynchronousTestCase):
    """The image, built by buildah on a base that is made here, as none may be downloaded."""

    def setUp(self) -> None:
        need_systems()
        self.buildah = need_program(self, "buildah")
        self.folder = temporary_folder(self)
        storage = self.folder / "storage"
        self.environment = os.environ | {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
        self.options = ("--root", str(storage), "--runroot", str(self.folder / "run"))

    def build(self, *words: str | Path, folder: Path = ROOT) -> str:
        """Call buildah; returns what it said."""
        command = (self.buildah, *self.options, *words)
        return run(*command, folder=folder, environment=self.environment).strip()

    def base(self) -> None:
        """Make what the first line of the Dockerfile names: Debian 13 with its Python."""
        [name] = set(re.findall(r"(?m)^FROM (\S+)", DOCKERFILE))
        system, archive = builder("trixie"), self.folder / "base.tar"
        run("tar", "-C", system, "--exclude=./srv", "--exclude=./dev", "-cf", archive, ".")
        container = self.build("from", "--name", "base", "scratch")
        self.build("add", "--quiet", container, archive, "/")
        self.build("run", container, "ln", "-s", "/usr/bin/python3", "/usr/local/bin/python")
        variables = ("PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", f"PIP_CERT={AUTHORITIES}")
        for variable in variables:
            self.build("config", "--env", variable, container)
        self.build("commit", "--quiet", container, f"docker.io/library/{name}")

    def test_a_message(self) -> None:
        """It is built, and its server delivers as the image's user, with no right of root's."""
        self.base()
        self.build("build", "--pull-never", "--tag", "mailturn", ".")
        container = self.build("from", "--pull-never", "localhost/mailturn")
        root = Path(self.build("mount", container))
        self.addCleanup(self.build, "umount", container)
        (root / "etc/mta/mta.yaml").write_text(_IN_CONTAINER)
        [user] = instructions("USER")
        server = f"setpriv --reuid {user.partition(':')[0]} --regid {user.partition(':')[2]}"
        server += " --clear-groups --bounding-set -all --no-new-privs"
        words = " ".join(json.loads(instructions("CMD")[0]))
        said = run(
            *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-ec"),
            *(_START, str(root), f"cd /var/lib/mta && exec {server} {words}", sys.executable),
        )
        self.assertIn("delivered bob@example.com by maildir:/var/mail/example.com/bob", said)


_IN_CONTAINER = """hostname: mail.example.com
listen: [{endpoint: "tcp:25", service: smtp, tls: "off"}]
domains: {example.com: {mailboxes: any}}
"""
# A container, as far as a namespace is one: the server starts in it, and takes a message.
_START = """
ip link set lo up
echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
mount --rbind /dev "$0/dev"
PATH=/opt/mta/bin:/usr/sbin:/usr/bin chroot "$0" sh -c "$1" > "$0/log" 2>&1 &
until grep -q ' ready$' "$0/log"; do sleep 0.1; done
"$2" -c "import smtplib
with smtplib.SMTP('127.0.0.1', 25) as client:
    client.sendmail('a@b.example', 'bob@example.com', 'Subject: x\\n\\nhello')"
until grep -q ' removed$' "$0/log"; do sleep 0.1; done
cat "$0/log"
"""


class ComposeTests(SynchronousTestCase):
    """How it is run."""

    def test_volumes(self) -> None:
        """Each place that the image keeps has a volume, and each volume a place."""
        volumes = dict(volume.split(":") for volume in SERVICE["volumes"])
        [places] = instructions("VOLUME")
        self.assertEqual(sorted(volumes.values()), sorted(json.loads(places)))
        self.assertEqual(
            set(yaml.safe_load((ROOT / "compose.yaml").read_text())["volumes"]), set(volumes)
        )

    def test_ports(self) -> None:
        """What is published is what the image says, and by its own number."""
        [exposed] = instructions("EXPOSE")
        published = {port for each in SERVICE["ports"] for port in each.split(":")}
        self.assertLessEqual(published, set(exposed.split()))

    def test_health(self) -> None:
        """The check succeeds while the server is up, and fails when it is not."""
        server = Server(self, configuration(metrics="tcp:0:interface=127.0.0.1"))
        server.start()
        [port] = re.findall(r"listening on tcp:(\d+):\S+ \(metrics\)", server.log)
        kind, _, *arguments = SERVICE["healthcheck"]["test"]
        self.assertEqual(kind, "CMD")
        words = [word.replace(f":{HEALTH_PORT}/", f":{port}/") for word in arguments]
        self.assertNotEqual(words, arguments)
        for expected in (0, 1):
            asked = subprocess.run([sys.executable, *words], capture_output=True, check=False)
            self.assertEqual(asked.returncode, expected, asked.stderr)
            server.stop()

    def test_time_to_stop(self) -> None:
        """Deliveries have the time to end that systemd gives them, at least."""
        unit = (ROOT / "etc/mta.service").read_text()
        [seconds] = re.findall(r"(?m)^TimeoutStopSec=(\d+)", unit)
        self.assertGreaterEqual(int(SERVICE["stop_grace_period"].rstrip("s")), int(seconds))
