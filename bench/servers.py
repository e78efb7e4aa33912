"""The servers that are measured: this program, and what others are to it.

Each lives in a folder of its own, takes mail on a private port of this machine, brings the mail
of ``bench.example`` into one Maildir, and all other mail to one next hop.
"""

from __future__ import annotations

import atexit
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bench import tree

DOMAIN = "bench.example"
PATIENCE = 60.0  # seconds that a server may take to start, to end, or to do what it was given

SOURCE = Path(__file__).resolve().parent.parent
_TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")

T = TypeVar("T")


class Server:
    """A server that runs: the root of a tree of processes.

    `new` is the folder in which its mail arrives, `port` where it takes it.
    """

    name: str
    new: Path
    port: int

    def __init__(self, command: Sequence[str], folder: Path, output: int | None = None) -> None:
        """Start it.  A session of its own: what is ended later is this tree and no other."""
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            start_new_session=True,
        )
        atexit.register(self.stop)  # for the case that whoever starts it fails

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        return tree.cpu_seconds(self._process.pid)

    def memory(self) -> int:
        """Octets that all its processes have in memory now."""
        return tree.memory(self._process.pid)

    def growth(self) -> tree.Growth:
        """Watches from now on by how much its processes grow."""
        return tree.Growth(self._process.pid)

    def stop(self) -> None:
        """End it, with all its processes."""
        atexit.unregister(self.stop)
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _wait_for(self, pattern: str, log: Path) -> re.Match[str]:
        """What the log says when it is ready.  Raises RuntimeError where it ends first."""

        def said() -> re.Match[str] | None:
            text = log.read_text("utf-8", "replace") if log.exists() else ""
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} does not start:\n{text}")
            return re.search(pattern, text, re.DOTALL)

        return wait_until(said, f"{self.name} is ready")


LISTENER: Mapping[str, str] = {
    "endpoint": "tcp:0:interface=127.0.0.1",
    "service": "smtp",
    "tls": "opportunistic",
}


def configure(
    folder: Path,
    next_hop: str = "discard",
    workers: int = 2,
    per_destination: int = 20,
    keys: Mapping[str, Any] | None = None,
) -> Path:
    """Write a configuration of ours.

    `next_hop`: where mail for other domains goes, `per_destination`: over how many connections
    (as many as Postfix by default); `keys` replace what it says.
    """
    folder.mkdir(exist_ok=True)
    configuration = {
        "hostname": "mta.example",
        "spool": "spool",
        "run_as": "root",  # where it is root who measures
        "listen": [LISTENER],
        "domains": {DOMAIN: {"deliver": "maildir:mail/{local}", "mailboxes": "any"}},
        "routes": {"default": next_hop},
        "queue": {"workers": workers, "per_destination": per_destination},
        "limits": {"connections": 12000, "connections_per_host": 12000},
    }
    path = folder / "mta.yaml"
    path.write_text(yaml.safe_dump(configuration | dict(keys or {})))
    return path


class Ours(Server):
    """``twistd mta``, by a `configuration`; `ports` are those of its listeners, by service."""

    name = "mta"

    def __init__(self, configuration: Path, core: int | None = None) -> None:
        """`core`: the only one that it may use; None: any."""
        folder = configuration.parent
        self.configuration = configuration
        self.new = folder / "mail" / "inbox" / "new"
        log = folder / "mta.log"
        log.unlink(missing_ok=True)
        options = ("--nodaemon", "--pidfile=", f"--logfile={log}")
        command = [*_TWISTD, *options, "mta", f"--config={configuration}"]
        if core is not None:
            command = ["taskset", "--cpu-list", str(core), *command]
        super().__init__(command, folder)
        workers = yaml.safe_load(configuration.read_text())["queue"]["workers"]
        said = self._wait_for(r" ready\n.*" * workers, log).string
        listening = re.findall(r"listening on (?:haproxy:)?tcp:(\d+)\S* \((\w+)\)", said)
        self.ports = {service: int(port) for port, service in listening}
        self.port = self.ports["smtp"]


class Script(Server):
    """One of `bench.programs`, which prints the port that it listens on.

    `new`: the folder in which mail arrives, if any does.
    """

    def __init__(self, name: str, *arguments: object, new: Path = Path(os.devnull)) -> None:
        self.name = str(arguments[0])
        self.new = new
        command = [sys.executable, "-m", f"bench.programs.{name}", *map(str, arguments)]
        super().__init__(command, SOURCE, subprocess.PIPE)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise RuntimeError(f"{self.name} does not start")
        self.port = int(said)


_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def free_port() -> int:
    """A port that nobody had a moment ago, for programs that can't choose one themselves.

    It is below those of outgoing connections, of which one might take it meanwhile.
    """
    first = int(_OUTGOING.read_text().split()[0])
    while True:
        port = random.randrange(first // 2, first)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def answers(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], T | None], what: str, timeout: float = PATIENCE) -> T:
    """The first true value of `condition`.  Raises RuntimeError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise RuntimeError(f"not within {timeout:g} s: {what}")
        time.sleep(0.005)
    return value
