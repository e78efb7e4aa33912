"""Many offices that hold their links to one relay."""

from __future__ import annotations

import resource
import smtplib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

import yaml

from bench.figures import MIB, Bench, Figure, stopping
from bench.rows.relay import MTA, PASSWORD, add_user
from bench.servers import LISTENER, PATIENCE, SOURCE, Ours, Script, configure

REST = 60.0  # seconds at rest: each link has had its NOOP then
MAILS = 50  # of which each goes to another office
OTHER_FILES = 200  # that are open beside the connections


class HeldLinks:
    """A thousand links with TLS on one process."""

    name = "held links"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        number = min(bench.messages(1000), most - OTHER_FILES)
        ours = Ours(_configured(bench.next_folder(), number))
        name = f"{number:,} held links"
        with stopping(ours):
            before = ours.memory()
            with _offices(ours.ports["submission"], number) as heard:
                heard.wait_for(b"up", number)
                time.sleep(5)
                memory, cpu, began = ours.memory(), ours.cpu_seconds(), time.monotonic()
                time.sleep(REST)
                used = (ours.cpu_seconds() - cpu) / (time.monotonic() - began)
                taken = [heard.time_of(_send, ours, 7 * n % number) for n in range(MAILS)]
                others = [heard.time_of(_put, ours, 3 * n % number) for n in range(MAILS // 5)]
        yield Figure(f"{name}: memory of each", "KiB", [(memory - before) / number / 1024])
        yield Figure(f"{name}: memory", "MiB", [memory / MIB], bar=300, at_most=True)
        yield Figure(f"{name}: CPU at rest", "% of a core", [100 * used], bar=5, at_most=True)
        for what, times in (("mail to one", taken), ("mail by another process", others)):
            slowest = 1000 * quantiles(times, n=20)[-1]
            yield Figure(f"{name}: {what}, p95", "ms", [slowest], bar=100, at_most=True)


class _Heard:
    """The lines of the offices' program."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self._lines = connection.makefile("rb")

    def wait_for(self, word: bytes, count: int) -> None:
        """Read until so many lines with that word have come."""
        while count:
            line = self._lines.readline()
            if not line:
                raise RuntimeError("the offices are gone")
            count -= line.startswith(word)

    def time_of(self, send: Callable[[Ours, str], float], ours: Ours, number: int) -> float:
        """The seconds until a message has reached an office."""
        begun = send(ours, f"bob@office{number}.example")
        self.wait_for(b"mail %d\n" % number, 1)
        return time.monotonic() - begun


@contextmanager
def _offices(port: int, number: int) -> Iterator[_Heard]:
    script = Script("offices", port, number, PASSWORD)
    with stopping(script), socket.create_connection(("127.0.0.1", script.port)) as connection:
        yield _Heard(connection)


def _send(ours: Ours, recipient: str) -> float:
    """Send a message by SMTP; returns when its content begins."""
    with smtplib.SMTP("127.0.0.1", ours.port, timeout=PATIENCE) as client:
        client.ehlo("client.example")
        client.mail("a@client.example")
        client.rcpt(recipient)
        begun = time.monotonic()
        client.data(b"Subject: x\r\n\r\nx\r\n")
    return begun


def _put(ours: Ours, recipient: str) -> float:
    """Put a message into the spool by ``mta sendmail``; returns when that is done."""
    command = [*MTA, "sendmail", "-f", "a@client.example", recipient]
    subprocess.run(
        [*command, "--config", str(ours.configuration)],
        cwd=SOURCE,
        input=b"Subject: x\r\n\r\nx\r\n",
        check=True,
    )
    return time.monotonic()


def _configured(folder: Path, number: int) -> Path:
    """The configuration of a relay with so many offices, whose users all have one password."""
    names = [f"office{n}" for n in range(number)]
    keys = {
        "listen": [LISTENER, {**LISTENER, "service": "submission", "tls": "implicit"}],
        "users": "users.yaml",
        "domains": {f"{name}.example": {"deliver": f"hold:{name}"} for name in names},
        "peers": {
            name: {"user": name, "domains": [f"{name}.example"], "linger": "1h"} for name in names
        },
    }
    configuration = configure(folder, workers=1, keys=keys)
    add_user(configuration)
    users = folder / "users.yaml"
    document = yaml.safe_load(users.read_text())
    document["users"] = dict.fromkeys(names, document["users"]["office"])
    users.write_text(yaml.safe_dump(document))
    return configuration
