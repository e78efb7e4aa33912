"""Mail that can be told from other mail, clients that send it, and where it arrives."""

from __future__ import annotations

import re
import signal
import smtplib
import subprocess
import threading
import time
from pathlib import Path

from tests.processes import DEADLINE, MTA, Server, body_of, source_environment

LARGE_EVERY = 20  # one in so many messages is too large for the database
CALL_PAUSE = 1.0  # seconds between two calls of a command, whose start takes a processor as long
TURN_PAUSE = 3.0  # seconds between two turns: the server holds the link meanwhile
MAX_CALL = 300.0  # seconds, on a machine that does other things besides
PACE = 0.03  # seconds between the messages of a client: kills are tried, not speed

_MARKER = re.compile(rb"^marker ([0-9a-z-]+)$", re.MULTILINE)


def body(marker: str) -> bytes:
    """The whole body of the message with this marker, so that a damaged one is found, too."""
    number = int(marker.rpartition("-")[2])
    lines = 5_000 if number % LARGE_EVERY == 0 else 10
    filling = b"".join(
        b".%d of a message that is not to be lost, nor any line\r\n" % line for line in range(lines)
    )
    return b"marker %s\r\n" % marker.encode() + filling + b"end\r\n"


def is_whole(message: bytes) -> bool:
    """Tell whether a message of ours is as it was sent."""
    return marker_of(message) is not None


def marker_of(message: bytes) -> str | None:
    """The marker of a message of ours; None: it is damaged."""
    found = body_of(message)
    match = _MARKER.search(found)
    if match is None or found != body(match[1].decode()).replace(b"\r\n", b"\n"):
        return None
    return match[1].decode()


def content(marker: str, author: str) -> bytes:
    """The message with this marker."""
    return f"From: <{author}>\r\nSubject: durability\r\n\r\n".encode() + body(marker)


class Source(threading.Thread):
    """Hands in one message after the other until it is told to finish.

    `acknowledged`: when each message that was taken was begun, by its marker.
    """

    def __init__(self, name: str, author: str, forward_path: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged: dict[str, float] = {}
        self._name = name
        self._author = author
        self._forward_path = forward_path
        self._count = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self.converse()
            except (OSError, smtplib.SMTPException):
                self._over.wait(PACE)  # the server is down: it comes back

    def finish(self) -> None:
        """Send no more, and end."""
        self._over.set()
        self.join(MAX_CALL)
        assert not self.is_alive(), f"{self._name} does not end"

    def converse(self) -> None:
        """Hand in some messages."""
        raise NotImplementedError


class Client(Source):
    """Sends by SMTP, many messages on a connection."""

    def __init__(self, name: str, server: Server, author: str, forward_path: str) -> None:
        super().__init__(name, author, forward_path)
        self._server = server

    def converse(self) -> None:
        port = self._server.ports["smtp"]
        with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=DEADLINE) as client:
            while not self._over.wait(PACE):
                self._count += 1
                marker, begun = f"{self._name}-{self._count}", time.time()
                client.sendmail(self._author, self._forward_path, content(marker, self._author))
                self.acknowledged[marker] = begun


class Command:
    """A command of ours that may be killed while it runs."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None

    def call(self, stdin: bytes = b"") -> int:
        """Run it to its end; returns its exit status."""
        with self._lock:
            running = self._running = subprocess.Popen(
                [*MTA, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=source_environment(),
            )
        running.communicate(stdin)
        with self._lock:
            self._running = None
        return running.wait()

    def kill(self) -> bool:
        """Kill what runs now; returns whether that was before its end."""
        with self._lock:
            if self._running is None:
                return False
            self._running.kill()
            return self._running.wait() == -signal.SIGKILL


class Caller(Source):
    """Hands in its messages by ``mta sendmail``."""

    def __init__(self, name: str, server: Server, author: str, forward_path: str) -> None:
        super().__init__(name, author, forward_path)
        options = ("-C", str(server.config), "-f", author)
        self.command = Command("sendmail", *options, forward_path)

    def converse(self) -> None:
        self._count += 1
        marker, begun = f"{self._name}-{self._count}", time.time()
        if self.command.call(content(marker, self._author)) == 0:
            self.acknowledged[marker] = begun
        self._over.wait(CALL_PAUSE)


class Turner(threading.Thread):
    """Calls ``mta turn`` again and again, which takes the link of the server that dials."""

    def __init__(self, server: Server, peer: str) -> None:
        super().__init__(daemon=True)
        self.command = Command("turn", peer, "--config", str(server.config))
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(TURN_PAUSE):
            self.command.call()

    def finish(self) -> None:
        """Call it no more; what runs ends by itself, once no more mail comes."""
        self._over.set()
        self.join(MAX_CALL)
        assert not self.is_alive(), "mta turn does not end"


class Arrivals:
    """What came into the ``new`` of a Maildir, each file read once.

    `copies` has the times of the files of each marker, `damaged` the names of those that are not
    as they were sent.
    """

    def __init__(self, maildir: Path) -> None:
        self.copies: dict[str, list[float]] = {}
        self.damaged: list[str] = []
        self._folder = maildir / "new"
        self._seen: set[str] = set()

    def look(self) -> None:
        """Take note of what has come."""
        for path in self._folder.glob("*"):
            if path.name not in self._seen:
                self._seen.add(path.name)
                self._read(path)

    def _read(self, path: Path) -> None:
        marker = marker_of(path.read_bytes())
        if marker is None:
            self.damaged.append(path.name)
        else:
            self.copies.setdefault(marker, []).append(path.stat().st_mtime)
