"""Real filters beside the server: scripted ones, and those that Debian has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from bench.servers import free_port
from tests.processes import ROOT, Process, temporary_folder, wait_until

PYTHON = "/usr/bin/python3"  # the system's, which has Debian's modules
PROGRAM = ROOT / "tests/interop/scripted_milter.py"


class ScriptedMilter:
    """A filter by the real libmilter, see `scripted_milter.py`; skips the test without it.

    `in_file`: it listens on a UNIX socket.
    """

    def __init__(self, case: SynchronousTestCase, *, in_file: bool = False) -> None:
        found = subprocess.run(
            [PYTHON, "-c", "import Milter"], capture_output=True, check=False
        ).returncode
        if found != 0:
            raise SkipTest("python3-milter is not installed")
        self.port = free_port()
        self._folder = temporary_folder(case)
        self._in_file = in_file
        self._process: Process | None = None
        self.script()
        self.start()
        case.addCleanup(self.kill)

    @property
    def socket(self) -> str:
        """Where it listens."""
        return f"unix:{self._folder}/socket" if self._in_file else f"inet:127.0.0.1:{self.port}"

    @property
    def process(self) -> Process:
        """The process that runs, or ran last."""
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Start it."""
        place = self.socket if self._in_file else f"inet:{self.port}@127.0.0.1"
        command = [PYTHON, str(PROGRAM), place]
        command += [str(self._folder / "script"), str(self._folder / "log")]
        self._process = Process(command, self._folder)
        self._process.wait_for("ready")
        wait_until(self._is_listening, "the filter listens")

    def kill(self) -> None:
        """Kill it, if it runs."""
        self.process.kill()

    def script(self, **script: Any) -> None:
        """What it does from the next connection on; its log begins anew."""
        (self._folder / "script").write_text(json.dumps(script), "utf-8")
        (self._folder / "log").write_text("", "utf-8")

    @property
    def seen(self) -> list[list[Any]]:
        """The callbacks, each with its arguments."""
        lines = (self._folder / "log").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def callbacks(self) -> list[str]:
        """The names of the callbacks."""
        return [name for name, *_ in self.seen]

    def _is_listening(self) -> bool:
        if self._in_file:
            return (self._folder / "socket").exists()
        command = ["ss", "-Hltn", f"sport = :{self.port}"]
        return bool(subprocess.run(command, capture_output=True, check=False).stdout)


def milters(*sockets: str, **keys: Any) -> list[Mapping[str, Any]]:
    """The `milters` of a configuration."""
    return [{"socket": each, "name": f"filter{n}", **keys} for n, each in enumerate(sockets)]
