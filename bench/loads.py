"""The loads: Postfix's own smtp-source and smtp-sink, and what they can't do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.servers import DOMAIN, PATIENCE, SBIN, Server, free_port, wait_until


@dataclass(frozen=True, slots=True)
class Load:
    """Messages of one size in a number of sessions; `kept`: many messages a connection."""

    octets: int
    sessions: int
    kept: bool
    messages: int
    domain: str = DOMAIN

    def start(self, server: Server) -> subprocess.Popen[bytes]:
        """Begin to send."""
        program = shutil.which("smtp-source", path=SBIN)
        assert program
        return subprocess.Popen(
            [
                program,
                *(["-d"] if self.kept else []),
                *("-s", str(self.sessions), "-m", str(self.messages), "-l", str(self.octets)),
                *("-f", "sender@client.example", "-t", f"inbox@{self.domain}"),
                f"127.0.0.1:{server.port}",
            ]
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """What one load took: seconds of the clock until the last 250 and until the last message
    was there, and seconds of the CPU."""

    accepted: float
    arrived: float
    cpu: float


def run(load: Load, server: Server, arrived: Arrivals) -> Cost:
    """Send a load and wait until all of it has arrived."""
    os.sync()  # what came before shall not be paid for now
    before = arrived.count()
    cpu, began = server.cpu_seconds(), time.monotonic()
    source = load.start(server)
    if source.wait(10 * PATIENCE):
        raise RuntimeError(f"{server.name}: smtp-source failed")
    accepted = time.monotonic()
    wait_until(
        lambda: arrived.count() - before >= load.messages, "all mail has arrived", 10 * PATIENCE
    )
    ended = time.monotonic()
    time.sleep(0.2)  # what is still to be recorded belongs to the cost
    return Cost(accepted - began, ended - began, server.cpu_seconds() - cpu)


class Arrivals:
    """Counts the messages of a Maildir."""

    def __init__(self, new: Path) -> None:
        self._new = new
        self._past = 0

    def count(self) -> int:
        """How many there are."""
        try:
            return len(os.listdir(self._new))
        except FileNotFoundError:
            return 0

    def clear(self) -> None:
        """Put the Maildir aside.

        Nothing is removed until all is measured: ext4 does not use the inode of a file again
        for a minute, and whoever makes files meanwhile pays for the search.
        """
        if self._new.exists():
            self._past += 1
            maildir = self._new.parent
            maildir.rename(maildir.with_name(f"{maildir.name}-{self._past}"))


class Sink:
    """smtp-sink: takes mail and throws it away."""

    def __init__(self) -> None:
        self.port = free_port()
        program = shutil.which("smtp-sink", path=SBIN)
        assert program
        self._said = b""
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [program, "-c", *user, f"127.0.0.1:{self.port}", "1000"], stdout=subprocess.PIPE
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def count(self) -> int:
        """How many messages it has taken."""
        found = re.findall(rb"mesg=(\d+)", self._said)
        return int(found[-1]) if found else 0

    def clear(self) -> None:
        """Nothing is kept."""

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while said := os.read(self._process.stdout.fileno(), 65536):
            self._said = (self._said + said)[-200:]
