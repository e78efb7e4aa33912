"""What honest clients notice of others that bring no mail."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import quantiles

from bench.figures import MIB, Bench, Figure, stopping
from bench.programs.hostile import Attack, Manner
from bench.servers import DOMAIN, LISTENER, PATIENCE, SOURCE, Ours

SECONDS = 10.0  # that each attack lasts
SETTLING = 2.0  # seconds until memory is looked at after it
EHLO = "EHLO client.example|"
MAIL = f"{EHLO}MAIL FROM:<a@client.example>|"
RCPT = f"RCPT TO:<inbox@{DOMAIN}>|"
DATA = f"{MAIL}{RCPT}DATA|"
MESSAGE = "Subject: x\r\n\r\nx\r\n"
WITHOUT = "without it"
# Loopback is the Internet here, and all limits are the default ones.
KEYS = {
    "relay": {"networks": []},
    "limits": {},
    "listen": [LISTENER, {**LISTENER, "service": "submission", "tls": "implicit"}],
}


def client_hello() -> str:
    """The first octets of TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="mta.example")
    with suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    return outgoing.read().decode("latin-1")


@dataclass(frozen=True)
class Kind:
    """Clients that attack a listener, by what they do there."""

    name: str
    manner: Manner
    before: str = ""
    again: str = ""
    sessions: int = 50
    sources: int = 1
    service: str = "smtp"

    def attack(self, ports: Mapping[str, int]) -> Attack:
        """Aim at a server with these ports."""
        words = (self.manner.value, self.before, self.again)
        return Attack(ports[self.service], self.sessions, *words, sources=self.sources)


FLOOD, DEAF, DRIP, LEAVE = Manner.FLOOD, Manner.DEAF, Manner.DRIP, Manner.LEAVE
KINDS: Sequence[Kind] = (
    Kind("10,000 that say nothing, from 100 hosts", Manner.SILENT, sessions=10_000, sources=100),
    Kind("1,000 that say nothing, from 100 hosts", Manner.SILENT, sessions=1000, sources=100),
    Kind("RCPT, refused", FLOOD, MAIL, "RCPT TO:<x@elsewhere.test>|"),
    Kind("RCPT, taken", FLOOD, MAIL, RCPT),
    Kind("RCPT, from 20 hosts", FLOOD, MAIL, RCPT, 500, 20),
    Kind("NOOP", FLOOD, EHLO, "NOOP|"),
    Kind("RSET", FLOOD, EHLO, "RSET|"),
    Kind("EHLO", FLOOD, EHLO, EHLO),
    Kind("transactions given up", FLOOD, EHLO, f"MAIL FROM:<a@client.example>|{RCPT}RSET|"),
    Kind("empty chunks", FLOOD, MAIL + RCPT, "BDAT 0|"),
    Kind("chunks of two octets", FLOOD, MAIL + RCPT, "BDAT 2||"),
    Kind("HELP, replies not read", DEAF, EHLO, "HELP|"),
    Kind("EHLO, replies not read, from 10 hosts", DEAF, "", EHLO, 500, 10),
    Kind("one octet a second: EHLO", DRIP, "", "N", 1000, 20),
    Kind("one octet a second: TLS", DRIP, "", client_hello(), 1000, 20, "submission"),
    Kind("one octet a second: DATA", DRIP, DATA, "x", 1000, 20),
    Kind("one octet a second: BDAT", DRIP, f"{MAIL}{RCPT}BDAT 100000 LAST|", "x", 1000, 20),
    Kind("connections", LEAVE),
    Kind("connections from 20 hosts", LEAVE, "", "", 500, 20),
    Kind("TLS handshakes", LEAVE, client_hello(), "", 50, 1, "submission"),
    Kind("TLS handshakes from 20 hosts", LEAVE, client_hello(), "", 500, 20, "submission"),
    Kind("header without an end", FLOOD, DATA, "Field: x|", 10),
    Kind("line without an end", FLOOD, DATA, "x" * 1000, 10),
)


class Hostile:
    """One attack, and ordinary mail beside it."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.name = f"hostile: {kind.name}"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        seconds = SECONDS * bench.scale
        ours = bench.ours(workers=1, keys=KEYS)
        with stopping(ours):
            ordinary(ours, seconds / 5)
            quiet = ordinary(ours, seconds)
            memory, growth, cpu = ours.memory(), ours.growth(), ours.cpu_seconds()
            with attacking(self._kind.attack(ours.ports)):
                beside = ordinary(ours, seconds)
                used = (ours.cpu_seconds() - cpu) / seconds
            peak = growth.octets
            time.sleep(SETTLING)
            after = ours.memory() - memory
        yield Figure(
            f"{self.name}: mail", "messages/s", [beside.rate], [quiet.rate], 0.5, peer=WITHOUT
        )
        yield Figure(f"{self.name}: p99", "ms", [beside.p99], [quiet.p99], peer=WITHOUT)
        yield Figure(f"{self.name}: memory", "MiB more at most", [peak / MIB])
        yield Figure(f"{self.name}: memory", "MiB more afterwards", [after / MIB])
        yield Figure(f"{self.name}: CPU", "% of a core", [100 * used])


@dataclass(frozen=True)
class Ordinary:
    """How fast ordinary mail was: messages per second, milliseconds of all but the slowest 1 %."""

    rate: float
    p99: float


@contextmanager
def attacking(attack: Attack) -> Iterator[None]:
    """Attack for so long.

    With little of our processor: attackers have their own.
    """
    command = ["nice", sys.executable, *attack.arguments]
    process = subprocess.Popen(command, cwd=SOURCE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the attack does not begin")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ordinary(ours: Ours, seconds: float) -> Ordinary:
    """Send one message after the other, each on a connection of its own.

    One that is refused counts as one that took all the time.
    """
    took, refused = [], 0
    began = time.perf_counter()
    while (start := time.perf_counter()) < began + seconds:
        try:
            with smtplib.SMTP("127.0.0.1", ours.port, timeout=PATIENCE) as client:
                client.sendmail("a@client.example", f"inbox@{DOMAIN}", MESSAGE)
        except (smtplib.SMTPException, OSError):
            refused += 1
            time.sleep(0.01)
        else:
            took.append(1000 * (time.perf_counter() - start))
    lasted = time.perf_counter() - began
    times = took + [1000 * seconds] * (refused if len(took) > 1 else 2)
    return Ordinary(len(took) / lasted, quantiles(times, n=100)[-1])
