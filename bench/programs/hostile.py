"""Clients that bring no mail, in some manner, until they are ended.

``python -m bench.programs.hostile JSON``, where JSON is the fields of an `Attack`.  The line
``ready`` says that all have connected; from then on each that is closed is opened anew.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from functools import cache

SEGMENT = 64 * 1024  # octets that are written at once
SEEN = 1024 * 1024  # octets of replies that are read at once
PACE = 1.0  # seconds between the octets of one that drips
_REPEATED = re.compile(r"\{(.*?) \* (\d+)\}")
AT_ONCE = 50  # connections that are opened before the replies to others are read


class Manner(Enum):
    """What a client does after its first words."""

    FLOOD = "flood"  # says the same as fast as it is read
    DEAF = "deaf"  # the same, and reads no reply
    DRIP = "drip"  # an octet each second
    SILENT = "silent"  # nothing
    LEAVE = "leave"  # closes at the first reply
    TALK = "talk"  # the same at each reply, and to a challenge of SCRAM a wrong proof


@dataclass(frozen=True)
class Attack:
    """What the clients of one attack do.

    `before` is said once on each connection, `again` from then on; ``|`` is the end of a line, and
    ``{text * 9}`` the text nine times, with the number of each for ``#``.
    `sources`: addresses of this host that they come from, `first` of all those in 127.0.0.0/8.
    """

    port: int
    sessions: int
    manner: str
    before: str = ""
    again: str = ""
    sources: int = 1
    first: int = 250

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of the process that does it."""
        return "-m", "bench.programs.hostile", json.dumps(asdict(self))


class Session:
    """One connection, made anew whenever it is closed."""

    def __init__(self, attack: Attack, number: int) -> None:
        self._address = "127.0.0.1", attack.port
        host = attack.first + number % attack.sources
        self._source = f"127.0.{host // 250}.{1 + host % 250}", 0
        self._manner = Manner(attack.manner)
        self._before = _octets(attack.before)
        again = _octets(attack.again)
        often = max(1, SEGMENT // len(again)) if again and self._manner is not Manner.TALK else 1
        self._again = again * often

    def open(self, selector: selectors.BaseSelector) -> None:
        """Connect, and say what comes first."""
        self._connection = socket.socket()
        self._connection.setblocking(False)
        with suppress(BlockingIOError):
            self._connection.bind(self._source)
            self._connection.connect(self._address)
        self._unsent = memoryview(self._before)
        selector.register(self._connection, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def go_on(self, selector: selectors.BaseSelector, events: int) -> None:
        """Read and write what can be."""
        try:
            if events & selectors.EVENT_READ:
                self._read()
            if events & selectors.EVENT_WRITE:
                self._write(selector)
        except BlockingIOError:
            pass
        except OSError:
            selector.unregister(self._connection)
            self._connection.close()
            self.open(selector)

    def _read(self) -> None:
        if self._manner is Manner.DEAF:
            return
        said = self._connection.recv(SEEN)
        if not said or (self._manner is Manner.LEAVE and not self._unsent):
            raise ConnectionResetError
        if self._manner is Manner.TALK and not said.endswith(b"ready\r\n"):  # the greeting
            self._connection.send(_proof(said) if said.startswith(b"334 ") else self._again)

    def _write(self, selector: selectors.BaseSelector) -> None:
        if self._unsent:
            self._unsent = self._unsent[self._connection.send(self._unsent) :]
        if not self._unsent and self._manner in (Manner.FLOOD, Manner.DEAF):
            self._unsent = memoryview(self._again)
        events = 0 if self._manner is Manner.DEAF else selectors.EVENT_READ
        if self._unsent:
            events |= selectors.EVENT_WRITE
        if events:
            selector.modify(self._connection, events, self)

    def drip(self) -> None:
        """Say one more octet."""
        octet, self._again = self._again[:1], self._again[1:] + self._again[:1]
        with suppress(OSError):
            self._connection.send(octet)


def run(attack: Attack) -> Iterator[None]:
    """Attack; yields when all have connected, and ever again after that."""
    selector = selectors.DefaultSelector()
    sessions = [Session(attack, number) for number in range(attack.sessions)]
    for number, session in enumerate(sessions, 1):
        session.open(selector)
        if number % AT_ONCE == 0:
            _serve(selector, 0.02)
    yield
    dripped = time.monotonic()
    while True:
        _serve(selector, PACE)
        if attack.manner == Manner.DRIP.value and time.monotonic() - dripped >= PACE:
            dripped = time.monotonic()
            for session in sessions:
                session.drip()
        yield


def _serve(selector: selectors.BaseSelector, seconds: float) -> None:
    for key, events in selector.select(seconds):
        key.data.go_on(selector, events)


def _proof(challenge: bytes) -> bytes:
    """A wrong one, for the nonce of the server (RFC 5802 section 5)."""
    nonce = b64decode(challenge[4:]).partition(b",")[0]
    return b64encode(b"c=biws,%b,p=%b" % (nonce, b64encode(bytes(32)))) + b"\r\n"


def _repeated(match: re.Match[str]) -> str:
    text, often = match[1], int(match[2])
    if "#" not in text:
        return text * often
    return "".join(text.replace("#", str(number)) for number in range(often))


@cache
def _octets(text: str) -> bytes:
    text = _REPEATED.sub(_repeated, text)
    return text.replace("|", "\r\n").encode("latin-1")


def main(attack: str) -> None:
    """See the module."""
    for number, _ in enumerate(run(Attack(**json.loads(attack)))):
        if number == 0:
            print("ready", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
