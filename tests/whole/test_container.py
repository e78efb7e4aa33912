"""The container: ``Dockerfile`` and ``compose.yaml``, as far as it goes without a container."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT, Server, configuration

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
