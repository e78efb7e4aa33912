"""What honest clients notice of others that bring no mail."""

from __future__ import annotations

import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import quantiles

from bench.figures import Bench, Figure, stopping
from bench.servers import DOMAIN, PATIENCE, SOURCE

MAIL = "EHLO client.example|MAIL FROM:<a@client.example>|"
RCPT = f"RCPT TO:<inbox@{DOMAIN}>|"
# What each session says once, and then again and again.
KINDS = {
    "RCPT refused": (MAIL, "RCPT TO:<x@elsewhere.test>|"),
    "NOOP": ("EHLO client.example|", "NOOP|"),
    "transactions given up": (
        "EHLO client.example|",
        f"MAIL FROM:<a@client.example>|{RCPT}RSET|",
    ),
    "empty chunks": (MAIL + RCPT, "BDAT 0|"),
    "chunks of two octets": (MAIL + RCPT, "BDAT 2||"),
}


class Hostile:
    """Sessions that only cost."""

    name = "hostile sessions"

    def measure(self, bench: Bench) -> Iterator[Figure]:
        """See `Row.measure`."""
        number = bench.messages(1000)
        for kind, (before, again) in KINDS.items():
            for sessions in (1, 20):
                ours = bench.ours(workers=1, keys={"relay": {"networks": []}})
                with stopping(ours):
                    quiet = _slowest(ours.port, number)
                    arguments = (str(ours.port), str(sessions), before, again)
                    attack = subprocess.Popen(
                        [sys.executable, "-m", "bench.programs.hostile", *arguments], cwd=SOURCE
                    )
                    try:
                        beside = _slowest(ours.port, number)
                    finally:
                        attack.kill()
                        attack.wait()
                what = f"{sessions} hostile sessions, {kind}: p99 of an honest message"
                yield Figure(what, "ms", [beside], bar=50, at_most=True)
                yield Figure(f"{what}, without them", "ms", [quiet])


def _slowest(port: int, number: int) -> float:
    """How many milliseconds a message takes that is slower than 99 % of them."""
    took = []
    for _ in range(number):
        began = time.perf_counter()
        with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
            client.sendmail("a@client.example", f"inbox@{DOMAIN}", "Subject: x\r\n\r\nx\r\n")
        took.append(1000 * (time.perf_counter() - began))
    return quantiles(took, n=100)[-1]
