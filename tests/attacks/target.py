"""What the attacks are tried on: a server with one of everything, and a next hop that listens."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from twisted.trial.unittest import SynchronousTestCase

from mta.users.file import UserFile
from tests.certificates import Authority
from tests.processes import DEADLINE, Server, listener, temporary_folder

FOLDER = Path(__file__).parent
PASSWORD = "wonderland"  # of alice
HOST = "mail.own.example"
EMPTY: Mapping[str, Mapping[str, str]] = MappingProxyType({})
_REPEATED = re.compile(rb"\{(.*?) \* (\d+)\}", re.DOTALL)


def rows(table: str) -> list[tuple[str, ...]]:
    """The rows of a table: the lines that are not empty and no comment, split at `` | ``."""
    lines = (FOLDER / f"{table}.txt").read_text("utf-8").splitlines()
    return [tuple(line.split(" | ")) for line in lines if line and not line.startswith("#")]


def octets(text: str) -> bytes:
    r"""What an escaped text means: ``\r \n \0 \xNN`` as in Python, ``{text * 1000}`` repeated."""
    plain = text.encode("utf-8").decode("unicode_escape").encode("latin-1")
    return _REPEATED.sub(lambda match: match[1] * int(match[2]), plain)


class NextHop:
    """An SMTP server that takes everything, splits nothing but CRLF.CRLF, and remembers it.

    `keywords` are what it answers to EHLO.  `contents` are the contents that it was sent by DATA,
    with their dots doubled, `chunks` what it was sent by BDAT, `commands` all else.  With
    `replies` it answers each command in turn with one of them, as it is, and then closes; with
    `refusal`, each RCPT with that line.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        *keywords: bytes,
        replies: tuple[bytes, ...] = (),
        refusal: bytes = b"",
    ) -> None:
        self.contents: list[bytes] = []
        self.chunks: list[bytes] = []
        self.commands: list[bytes] = []
        self.conversations = 0
        self._keywords = keywords
        self._replies = replies
        self._refusal = refusal
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        case.addCleanup(self._socket.close)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(DEADLINE)
        with connection, suppress(OSError):
            if self._replies:
                self._recite(connection)
            else:
                self._receive(connection)
        self.conversations += 1

    def _recite(self, connection: socket.socket) -> None:
        for reply in self._replies:
            connection.sendall(reply)
            if not connection.recv(65536):
                return

    def _receive(self, connection: socket.socket) -> None:
        connection.sendall(b"220 next.hop.example\r\n")
        unread = b""
        while True:
            line, unread = _until(connection, unread, b"\r\n")
            self.commands.append(line)
            verb = line[:4].upper()
            if verb == b"DATA":
                connection.sendall(b"354 go on\r\n")
                content, unread = _until(connection, unread, b"\r\n.\r\n")
                self.contents.append(content)
            if verb == b"BDAT":
                size = int(line.split()[1])
                chunk, unread = _exactly(connection, unread, size)
                self.chunks.append(chunk)
            if verb in (b"EHLO", b"LHLO"):
                lines = (b"next.hop.example", *self._keywords)
                marks = [b"-"] * (len(lines) - 1) + [b" "]
                connection.sendall(
                    b"".join(b"250%b%b\r\n" % each for each in zip(marks, lines, strict=True))
                )
            elif verb == b"RCPT" and self._refusal:
                connection.sendall(self._refusal + b"\r\n")
            else:
                connection.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"250 2.0.0 OK\r\n")


def _until(connection: socket.socket, unread: bytes, end: bytes) -> tuple[bytes, bytes]:
    """What comes before `end`, and what after it.  Raises OSError at the end of input."""
    while end not in unread:
        octets = connection.recv(65536)
        if not octets:
            raise ConnectionError("closed")
        unread += octets
    found, _, rest = unread.partition(end)
    return found, rest


def _exactly(connection: socket.socket, unread: bytes, size: int) -> tuple[bytes, bytes]:
    """So many octets, and what comes after them.  Raises OSError at the end of input."""
    while len(unread) < size:
        octets = connection.recv(65536)
        if not octets:
            raise ConnectionError("closed")
        unread += octets
    return unread[:size], unread[size:]


class Client:
    """A client that says what it likes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._unread = b""

    def send(self, data: bytes) -> None:
        """Send octets; a server that has closed takes none."""
        with suppress(OSError):
            self._socket.sendall(data)

    def reply(self) -> str:
        """The next reply, its lines joined; empty where the server has closed."""
        lines = []
        while True:
            try:
                line, self._unread = _until(self._socket, self._unread, b"\r\n")
            except OSError:
                return ""
            lines.append(line.decode("utf-8", "backslashreplace"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    def say(self, *commands: bytes) -> str:
        """Send commands one after the other; returns the reply to the last."""
        reply = ""
        for command in commands:
            self.send(command + b"\r\n")
            reply = self.reply()
        return reply

    @property
    def is_open(self) -> bool:
        """Whether the server still answers."""
        return bool(self.say(b"NOOP"))


class Target:
    """The server, with `alice` among its users and a `NextHop` for all that is not its own.

    It trusts no network.  Its submission listener begins with TLS.  `keywords` are those of the
    next hop, `domains` further ones.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        *keywords: bytes,
        domains: Mapping[str, Mapping[str, str]] = EMPTY,
    ) -> None:
        folder = temporary_folder(case)
        self.authority = Authority(folder)
        pair = self.authority.issue(HOST)
        UserFile(folder / "users.yaml").add("alice", PASSWORD, ["alice@own.example"])
        self.next_hop = NextHop(case, *keywords)
        next_hop = f"smtp://127.0.0.1:{self.next_hop.port}"
        own = "maildir:mail/{domain}/{local}"
        self.server = Server(
            case,
            {
                "hostname": HOST,
                "spool": "spool",
                "listen": [
                    listener("smtp", "opportunistic"),
                    listener("submission", "implicit"),
                    listener("lmtp"),
                    listener("odmr", "opportunistic"),
                ],
                "tls": {"certificate": str(pair.certificate), "key": str(pair.key)},
                "users": "users.yaml",
                "relay": {"networks": []},
                "domains": {
                    "own.example": {
                        "deliver": own,
                        "mailboxes": ["alice", "bob"],
                        "aliases": {"team": ["alice", "bob"], "out": "carol@away.example"},
                    },
                    "any.example": {"deliver": own, "mailboxes": "any"},
                    "bücher.example": {"deliver": own, "mailboxes": ["alice"]},
                    "held.example": {"deliver": "hold:office"},
                    "through.example": {"deliver": next_hop},
                    **domains,
                },
                "routes": {"default": next_hop},
                "peers": {"office": {"user": "office", "domains": ["held.example"]}},
                "queue": {"retry": ["1s"]},
            },
            folder=folder,
        )
        self.server.start()

    @contextmanager
    def session(
        self, service: str = "smtp", hello: bytes = b"EHLO client.example"
    ) -> Iterator[Client]:
        """A client of one of the listeners that has heard the greeting and said hello."""
        with socket.create_connection(("127.0.0.1", self.server.ports[service]), DEADLINE) as plain:
            connection: socket.socket = plain
            if service == "submission":
                trust = ssl.create_default_context(cafile=str(self.authority.path))
                connection = trust.wrap_socket(plain, server_hostname=HOST)
            client = Client(connection)
            client.reply()
            if hello:
                client.say(hello)
            yield client
            connection.close()

    @contextmanager
    def logged_in(self) -> Iterator[Client]:
        """A session of alice's."""
        with self.session("submission") as client:
            reply = client.say(b"AUTH PLAIN " + b64encode(f"\0alice\0{PASSWORD}".encode()))
            assert reply.startswith("235"), reply
            yield client

    def own_mail(self) -> list[Path]:
        """The files of all Maildirs."""
        mail = self.server.folder / "mail"
        return [path for path in mail.rglob("*") if path.is_file() and path.parent.name == "new"]
