"""Mail that can be told from other mail, clients that send it, and where it arrives."""

from __future__ import annotations

import re
import smtplib
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import DEADLINE, MTA, Server, body_of, source_environment

LARGE_EVERY = 20  # one in so many messages is too large for the database
TURN_EVERY = 3  # messages
MAX_CALL = 15.0  # seconds
PACE = 0.01  # seconds between the messages of a client: kills are tried, not speed

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


@dataclass
class Sent:
    """What one client handed in, and got an acknowledgement for: by marker, when it was begun."""

    acknowledged: dict[str, float] = field(default_factory=dict)


class Source(threading.Thread):
    """Hands in one message after the other until it is told to finish."""

    def __init__(self, name: str, author: str, forward_path: str) -> None:
        super().__init__(daemon=True)
        self.sent = Sent()
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
        self.join(DEADLINE)
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
                self.sent.acknowledged[marker] = begun


class Caller(Source):
    """Calls ``mta sendmail``, and now and then ``mta turn``; both may be killed.

    `kills`: when one was, seconds since the epoch.  ``mta turn`` goes on while mail comes: it is
    killed after a while by us.
    """

    def __init__(
        self, name: str, server: Server, author: str, forward_path: str, peer: str
    ) -> None:
        super().__init__(name, author, forward_path)
        self._config = str(server.config)
        self._peer = peer
        self.kills: list[float] = []
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """End what runs now, if anything does."""
        with self._lock:
            if self._running is not None:
                self.kills.append(time.time())
                self._running.kill()

    def converse(self) -> None:
        self._count += 1
        marker, begun = f"{self._name}-{self._count}", time.time()
        command = ("sendmail", "-C", self._config, "-f", self._author, self._forward_path)
        if self._call(command, content(marker, self._author)) == 0:
            self.sent.acknowledged[marker] = begun
        if self._count % TURN_EVERY == 1:
            self._call(("turn", self._peer, "--config", self._config), b"")

    def _call(self, arguments: Sequence[str], stdin: bytes) -> int:
        with self._lock:
            self._running = subprocess.Popen(
                [*MTA, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=source_environment(),
            )
        try:
            self._running.communicate(stdin, MAX_CALL)
        except subprocess.TimeoutExpired:
            self.kill()
        finally:
            with self._lock:
                ended, self._running = self._running, None
        return ended.wait()


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
