"""The loads: Postfix's own smtp-source and smtp-sink, and what they can't do."""

from __future__ import annotations

import os
import re
import select
import shutil
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench import tree
from bench.servers import (
    DOMAIN,
    PATIENCE,
    SBIN,
    SOURCE,
    Server,
    answers,
    free_port,
    wait_until,
)

LONG = 10 * PATIENCE  # seconds that a load may take


class Counter(Protocol):
    """Counts messages where they arrive."""

    def count(self) -> int:
        """How many there are."""


@dataclass(frozen=True, slots=True)
class Load:
    """Messages of one size in a number of sessions; `kept`: many messages a connection.

    `content`: the file that each of them is, in kept connections.
    """

    octets: int
    sessions: int
    kept: bool
    messages: int
    domain: str = DOMAIN
    tls: bool = False
    content: Path | None = None

    def start(self, server: Server) -> subprocess.Popen[bytes]:
        """Begin to send."""
        if self.content is not None:
            return self._start_with(self.content, server)
        if self.tls:
            numbers = (server.port, self.sessions, self.messages, self.octets)
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "bench.programs.tls_source",
                    *map(str, numbers),
                    self._recipient,
                ],
                cwd=SOURCE,
            )
        return subprocess.Popen(
            [
                program("smtp-source"),
                *(["-d"] if self.kept else []),
                *("-s", str(self.sessions), "-m", str(self.messages), "-l", str(self.octets)),
                *("-f", "sender@client.example", "-t", self._recipient),
                f"127.0.0.1:{server.port}",
            ]
        )

    def _start_with(self, content: Path, server: Server) -> subprocess.Popen[bytes]:
        numbers = map(str, (server.port, self.sessions, self.messages))
        program = [sys.executable, "-m", "bench.programs.content_source"]
        addresses = (self._recipient, "sender@client.example")
        return subprocess.Popen([*program, *numbers, str(content), *addresses], cwd=SOURCE)

    @property
    def _recipient(self) -> str:
        return f"inbox@{self.domain}"


WARM_UP = Load(2**10, 10, True, 200)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a message of a load cost: seconds of the clock until the last 250, and until the last
    one was there, and seconds of the CPU.

    `busy`: the cores of the machine that were busy meanwhile, with the clients and all else.
    """

    accepted: float
    arrived: float
    cpu: float
    busy: float


def run(load: Load, server: Server, arrivals: Counter | None = None) -> Cost:
    """Send a load, and wait until all of it has arrived; None: it never does."""
    return _run({server: load}, [] if arrivals is None else [arrivals])


def run_together(loads: Mapping[Server, Load]) -> Cost:
    """Send loads to several servers at the same time, until all has arrived in empty Maildirs."""
    maildirs = [Maildir(server.new) for server in loads]
    for maildir in maildirs:
        maildir.put_aside()
    return _run(loads, maildirs)


def _run(loads: Mapping[Server, Load], arrivals: Sequence[Counter]) -> Cost:
    """Send all loads, and wait until so many more have arrived; no `arrivals`: do not wait."""

    def arrived_so_far() -> int:
        return sum(each.count() for each in arrivals)

    def used() -> float:
        return sum(server.cpu_seconds() for server in loads)

    number = sum(load.messages for load in loads.values())
    os.sync()  # what came before shall not be paid for now
    before = arrived_so_far()
    cpu, began, busy = used(), time.monotonic(), tree.busy_seconds()
    sources = [(server.name, load.start(server)) for server, load in loads.items()]
    failed = [name for name, source in sources if _status(source)]
    if failed:
        raise RuntimeError(f"{failed[0]}: the load failed")
    accepted = time.monotonic()
    if arrivals:
        wait_until(lambda: arrived_so_far() - before >= number, "all has arrived", LONG)
    arrived, busy = time.monotonic(), tree.busy_seconds() - busy
    time.sleep(0.2)  # what is still to be recorded is a part of the cost
    spent = used() - cpu
    took = arrived - began
    return Cost((accepted - began) / number, took / number, spent / number, busy / took)


def in_turn(load: Load, servers: Sequence[Server], times: int) -> Mapping[Server, Sequence[Cost]]:
    """Send a load to each of the servers in turn, so many times; what it cost each of them.

    Their Maildirs are empty each time.  Nothing is removed until all is measured: ext4 does not
    use the inode of a file again for a minute, and whoever makes files meanwhile pays for the
    search.
    """
    costs: dict[Server, list[Cost]] = {server: [] for server in servers}
    for _ in range(times):
        for server in servers:
            costs[server].append(run_together({server: load}))
    return costs


def _status(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a process, at the moment of its end: `Popen.wait` only looks at times."""
    end = os.pidfd_open(process.pid)
    try:
        if not select.select([end], [], [], LONG)[0]:
            process.kill()
    finally:
        os.close(end)
    return process.wait()


class Maildir:
    """Counts the messages of a Maildir."""

    def __init__(self, new: Path) -> None:
        self._new = new

    def count(self) -> int:
        """See `Counter.count`."""
        with suppress(FileNotFoundError):
            return sum(1 for _ in self._new.iterdir())
        return 0

    def put_aside(self) -> None:
        """Begin with an empty one, without removing anything."""
        if self._new.exists():
            maildir = self._new.parent
            maildir.rename(maildir.with_name(f"{maildir.name}-{time.monotonic_ns()}"))


class Sink(Server):
    """smtp-sink: takes mail and throws it away."""

    name = "smtp-sink"

    def __init__(self) -> None:
        self.port = free_port()
        self._said = b""
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [program("smtp-sink"), "-c", *user, f"127.0.0.1:{self.port}", "1000"]
        super().__init__(command, SOURCE, subprocess.PIPE)
        threading.Thread(target=self._read, daemon=True).start()
        wait_until(lambda: answers(self.port), "smtp-sink is ready")

    def count(self) -> int:
        """See `Counter.count`."""
        found = re.findall(rb"mesg=(\d+)", self._said)
        return int(found[-1]) if found else 0

    def _read(self) -> None:
        assert self._process.stdout is not None
        while said := os.read(self._process.stdout.fileno(), 65536):
            self._said = (self._said + said)[-200:]


def send_large(server: Server, octets: int, chunks: bool) -> float:
    """Send one large message, by BDAT or by DATA; returns seconds until its 250."""
    lines = (b"x" * 76 + b"\r\n") * (2**16 // 78)
    whole = b"Subject: large\r\n\r\n" + lines * (octets // len(lines))
    with smtplib.SMTP("127.0.0.1", server.port, "client.example", PATIENCE) as connection:
        _say(connection, b"EHLO client.example\r\n")
        _say(connection, b"MAIL FROM:<sender@client.example>\r\n")
        _say(connection, f"RCPT TO:<inbox@{DOMAIN}>\r\n".encode())
        said = list(_chunks(whole)) if chunks else [b"DATA\r\n", whole + b".\r\n"]
        began = time.monotonic()
        for each in said:
            _say(connection, each)
        return time.monotonic() - began


def _say(connection: smtplib.SMTP, octets: bytes) -> None:
    """Send what has a reply.  Raises RuntimeError where it is negative."""
    connection.send(octets)
    code, text = connection.getreply()
    if code >= 400:
        raise RuntimeError(f"refused: {code} {text!r}")


def _chunks(whole: bytes) -> Iterator[bytes]:
    """BDAT with pieces of 1 MiB (RFC 3030)."""
    for start in range(0, len(whole), 2**20):
        piece = whole[start : start + 2**20]
        last = b" LAST" if start + 2**20 >= len(whole) else b""
        yield b"BDAT %d%b\r\n%b" % (len(piece), last, piece)


def program(name: str) -> str:
    """The path of one of Postfix's programs.  Raises RuntimeError."""
    path = shutil.which(name, path=SBIN)
    if path is None:
        raise RuntimeError(f"{name} is not installed; on Debian it is in the package postfix")
    return path
