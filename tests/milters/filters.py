"""Scripted filters in memory, and a server that asks them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mta.link import Link
from mta.mail import Agent, Hop
from mta.metrics import NullMeter
from mta.milters import MilterInspector, Surroundings
from mta.settings import Milter
from mta.smtp.receiver import Receiver
from mta.testing import (
    AcceptedMail,
    FakeReverseNames,
    FakeRouter,
    FakeTLS,
    MemorySpool,
    MemoryTransport,
)
from tests.conversations import receiver_config

CONTINUE = b"c"
SOCKET = "inet:127.0.0.1:11332"
MESSAGE = b"Subject: test\r\nX-Old: 1\r\n\r\nbody\r\n"
MUTE = {
    b"C": 0x1000,
    b"H": 0x2000,
    b"M": 0x4000,
    b"R": 0x8000,
    b"T": 0x10000,
    b"L": 0x80,
    b"N": 0x40000,
    b"B": 0x80000,
    b"U": 0x20000,
}

# Packets that answer: octets of command and data, without the length.
Answer = bytes | Sequence[bytes] | None


def packet(octets: bytes) -> bytes:
    """A packet with this command and data."""
    return struct.pack("!I", len(octets)) + octets


@dataclass
class ScriptedFilter:
    """A filter that answers by a table.

    `negotiated`: version, actions, wishes, and what follows them.  `answers` are by command, one
    for each time, the last one again and again: None for no answer at all, the empty octets for
    the end of the connection.  `seen` are commands with data, but for macros, which are in
    `macros` by command.
    """

    negotiated: tuple[int, int, int, bytes] = (6, 0x1FF, 0, b"")
    answers: dict[bytes, list[Answer]] = field(default_factory=dict)
    seen: list[tuple[bytes, bytes]] = field(default_factory=list)
    macros: dict[bytes, dict[str, str]] = field(default_factory=dict)
    offered: tuple[int, ...] = ()
    connections: list[_Transport] = field(default_factory=list)
    is_down: bool = False

    @property
    def commands(self) -> bytes:
        """The commands that came, in order; what would come with the next one, comes now."""
        for connection in self.connections:
            connection.protocol.flush()
        return b"".join(command for command, _ in self.seen)

    def told(self, command: bytes) -> list[bytes]:
        """The data of one command, each time."""
        return [data for each, data in self.seen if each == command]

    def taken(self, command: bytes, data: bytes) -> list[bytes] | None:
        """What is sent back; None: the connection ends."""
        if command == b"O":
            self.offered = struct.unpack("!III", data)
            if b"O" not in self.answers:
                version, actions, wishes, rest = self.negotiated
                return [b"O" + struct.pack("!III", version, actions, wishes) + rest]
        elif command == b"D":
            words = data[1:].decode().split("\0")[:-1]
            self.macros[data[:1]] = dict(zip(words[::2], words[1::2], strict=True))
            return []
        else:
            self.seen.append((command, data))
        if command in b"AQ" or self.negotiated[2] & MUTE.get(command, 0):
            return []
        script = self.answers.get(command, [CONTINUE])
        answer = script.pop(0) if len(script) > 1 else script[0]
        if answer == b"":
            return None
        if answer is None:
            return []
        return [answer] if isinstance(answer, bytes) else list(answer)


class _Transport:
    """A connection to a filter; what it sends comes at once.

    `writes`: how often the server has sent something.
    """

    def __init__(self, filter: ScriptedFilter, protocol: Any) -> None:
        self.filter = filter
        self.protocol = protocol
        self.producer: Any = None
        self.is_open = True
        self.is_paused = False
        self.aborted = False
        self.writes = 0
        self._octets = b""

    def write(self, octets: bytes) -> None:
        """Take what the server sends."""
        self.writes += 1
        self._octets += octets
        while len(self._octets) >= 4 and self.is_open:
            (length,) = struct.unpack("!I", self._octets[:4])
            if len(self._octets) < 4 + length:
                return
            body, self._octets = self._octets[4 : 4 + length], self._octets[4 + length :]
            answers = self.filter.taken(body[:1], body[1:])
            if answers is None:
                self.lose()
                return
            self.send(*answers)

    def send(self, *answers: bytes) -> None:
        """Let the filter send packets."""
        if answers and self.is_open:
            self.protocol.dataReceived(b"".join(map(packet, answers)))

    def lose(self) -> None:
        """Let the filter break off."""
        if self.is_open:
            self.is_open = False
            self.protocol.connectionLost(Failure(ConnectionLost()))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Keep the producer of what is written."""
        self.producer = producer

    def pauseProducing(self) -> None:
        """Read no more."""
        self.is_paused = True

    def resumeProducing(self) -> None:
        """Read again."""
        self.is_paused = False

    def loseConnection(self) -> None:
        """Close it."""
        if self.is_open:
            self.is_open = False
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        """Break it off."""
        self.aborted = True
        self.loseConnection()


class Filters(Clock):
    """A reactor whose connections lead to scripted filters, by port or path."""

    def __init__(self) -> None:
        super().__init__()
        self.filters: dict[int | str, ScriptedFilter] = {}
        self.connects: list[tuple[object, float]] = []

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> None:
        """Twisted's endpoints call this."""
        self._connect(port, IPv4Address("TCP", host, port), factory, timeout)

    def connectUNIX(
        self, address: str, factory: Any, timeout: float = 30, checkPID: bool = False
    ) -> None:
        """Twisted's endpoints call this."""
        self._connect(address, UNIXAddress(address), factory, timeout)

    def _connect(self, place: int | str, address: Any, factory: Any, timeout: float) -> None:
        self.connects.append((place, timeout))
        filter = self.filters[place]
        if filter.is_down:
            factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
            return
        protocol = factory.buildProtocol(address)
        transport = _Transport(filter, getattr(protocol, "_wrappedProtocol", protocol))
        filter.connections.append(transport)
        protocol.makeConnection(transport)


class FilterCase(SynchronousTestCase):
    """A server with filters, and a client of it."""

    max_end = 540.0
    max_body = 10**6

    def setUp(self) -> None:
        self.reactor = Filters()
        self.filter = self.reactor.filters[11332] = ScriptedFilter()
        self.spool, self.accepted = MemorySpool(), AcceptedMail()
        self.config = receiver_config(self.spool, self.accepted)
        self.names = FakeReverseNames({"192.168.1.1": "host.client.example"})
        self.results: list[tuple[str, str]] = []

    def inspector(self, milter: Milter) -> MilterInspector:
        """The inspector for a filter."""
        router = FakeRouter(
            {"mta.example": Hop(Agent.MAILDIR), "far.example": Hop(Agent.MX, "far.example")}
        )
        surroundings = Surroundings(
            self.reactor,
            "mta.example",
            self.spool,
            router,
            _Meter(self.results),
            self.max_body,
            self.max_end,
        )
        return MilterInspector(milter, surroundings)

    def begin(self, *milters: Milter, **changes: Any) -> None:
        """A client connects."""
        milters = milters or (Milter(SOCKET, "test"),)
        self.transport = MemoryTransport(lenient=True)
        config = replace(
            self.config,
            inspectors=[self.inspector(each) for each in milters],
            reverse_names=self.names,
            **changes,
        )
        self.link = Link(Receiver(config), self.reactor, FakeTLS())
        self.link.ended.addErrback(lambda _: None)
        self.link.makeConnection(self.transport)

    def say(self, *lines: bytes) -> list[str]:
        """The replies to these lines, the last line of each."""
        self.transport.taken()
        self.link.dataReceived(b"".join(line + b"\r\n" for line in lines))
        return self.replies()

    def replies(self) -> list[str]:
        """The replies that came, the last line of each."""
        lines = self.transport.taken().decode().splitlines()
        return [line for line in lines if line[3:4] == " "]

    def send(self, content: bytes = MESSAGE, *recipients: bytes) -> list[str]:
        """The codes of the replies to a message: MAIL, each RCPT, DATA, content."""
        rcpts = [b"RCPT TO:<%b>" % each for each in recipients or (b"b@mta.example",)]
        replies = self.say(b"MAIL FROM:<a@x.example>", *rcpts, b"DATA", content + b".")
        return [reply[:3] for reply in replies]

    def hello(self) -> None:
        """The client says its name."""
        self.say(b"EHLO client.example")

    def run_session(self, *milters: Milter, content: bytes = MESSAGE) -> list[str]:
        """A session with one message; the codes of its replies."""
        self.begin(*milters)
        self.hello()
        return self.send(content)

    def quit(self) -> None:
        """The client ends its session."""
        self.say(b"QUIT")
        self.link.connectionLost(Failure(ConnectionDone()))

    @property
    def kept(self) -> bytes:
        """The content that was committed, without our own field."""
        (message,) = self.accepted
        draft = next(draft for draft in self.spool.drafts if draft.id == message.id)
        return draft.content.partition(b"+0000\r\n")[2]


class _Meter(NullMeter):
    """Keeps the results of filters."""

    def __init__(self, results: list[tuple[str, str]]) -> None:
        self._results = results

    def filtered(self, filter: str, result: str) -> None:
        self._results.append((filter, result))
