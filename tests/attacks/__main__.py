"""Attack the program for some minutes: ``python -m tests.attacks MINUTES [SEED]``.

The suite's tables come first.  Then sessions that are made of rows of all tables, and mutated,
are held with one running server; what is looked for is a server that ends, a fault of its own in
the log, a connection that it lets hang, memory that grows.  Exit status 1: something was found.
"""

from __future__ import annotations

import random
import re
import socket
import sys
import time
from pathlib import Path

from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.target import FOLDER, Target, octets, rows

MAX_GROWTH = 200 * 1024  # KiB of memory, over that of the first minute
REPORT_EVERY = 10_000  # sessions
USUAL = (
    b"EHLO client.example",
    b"LHLO client.example",
    b"MAIL FROM:<a@away.example>",
    b"MAIL FROM:<> BODY=BINARYMIME SMTPUTF8",
    b"RCPT TO:<alice@own.example>",
    b"RCPT TO:<out@own.example>",
    b"DATA",
    b"BDAT 5",
    b"BDAT 10 LAST",
    b"RSET",
    b"NOOP",
    b"STARTTLS",
    b"AUTH PLAIN",
    b"Subject: x\r\n\r\nx\r\n.",
    b"QUIT",
)


class Fuzzer(SynchronousTestCase):
    """Holds the sessions; a test case for what it cleans up at its end."""

    def __init__(self, minutes: float, seed: int) -> None:
        super().__init__("runTest")
        self._end = time.monotonic() + 60 * minutes
        self._random = random.Random(seed)
        self._pieces = [octets(cell) for path in FOLDER.glob("*.txt") for cell in _cells(path)]

    def runTest(self) -> None:
        """Attack until the time is over."""
        target = Target(self)
        process = target.server.process
        assert process is not None
        sessions, first = 0, 0
        while time.monotonic() < self._end:
            self._hold(target)
            sessions += 1
            if sessions % REPORT_EVERY == 0:
                memory = _memory(process.pid)
                first = first or memory
                print(f"{sessions} sessions, {memory // 1024} MiB", flush=True)
                self.assertLess(memory - first, MAX_GROWTH)
                self.assertTrue(process.is_running)
                self.assertNotIn("Traceback", target.server.log)
                with target.session() as client:
                    self.assertTrue(client.is_open)
        self.assertTrue(process.is_running)
        self.assertNotIn("Traceback", target.server.log)

    def _hold(self, target: Target) -> None:
        ports = [target.server.ports[name] for name in ("smtp", "lmtp", "odmr")]
        with socket.create_connection(("127.0.0.1", self._random.choice(ports)), 10) as connection:
            connection.settimeout(10)
            try:
                for _ in range(self._random.randint(1, 12)):
                    connection.sendall(self._piece())
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except TimeoutError:
                raise AssertionError("the server lets a connection hang") from None
            except OSError:
                pass  # it closed first

    def _piece(self) -> bytes:
        choice = self._random
        piece = choice.choice(USUAL) if choice.random() < 0.7 else choice.choice(self._pieces)
        if choice.random() < 0.3:
            piece = self._mutated(bytearray(piece))
        return piece + choice.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b""))

    def _mutated(self, piece: bytearray) -> bytes:
        for _ in range(self._random.randint(1, 4)):
            place = self._random.randint(0, len(piece))
            match self._random.randrange(4):
                case 0:
                    piece[place:place] = self._random.choice(self._pieces)[:100]
                case 1:
                    del piece[place : place + self._random.randint(1, 10)]
                case 2:
                    piece[place:place] = bytes([self._random.randrange(256)])
                case _:
                    piece[place:place] = piece[: self._random.randint(0, 50)]
        return bytes(piece)


def _cells(path: Path) -> list[str]:
    return [cell for row in rows(path.stem) for cell in row]


def _memory(pid: int) -> int:
    """The resident memory of a process, in KiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def main(minutes: float = 10, seed: int = 0) -> int:
    """Attack for so long; returns the exit status."""
    seed = seed or random.SystemRandom().randrange(1, 2**31)
    print(f"seed {seed}", flush=True)
    result = TestResult()
    Fuzzer(minutes, seed).run(result)
    for _, problem in (*result.failures, *result.errors):
        print(problem)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3])))
