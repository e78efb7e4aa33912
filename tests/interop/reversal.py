"""Two servers of ours that change roles: a provider, and the office that is its customer."""

from __future__ import annotations

import socket
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench.servers import free_port
from mta.mail import Envelope, Mailbox, Recipient
from mta.queued import Filter
from mta.spool.tools import SpoolTools
from tests.certificates import Authority, fingerprint_of
from tests.processes import (
    DEADLINE,
    MTA,
    Server,
    body_of,
    configuration,
    local_domain,
    source_environment,
    temporary_folder,
)

PASSWORD = "correct horse"  # of the user `office`
BOB, CAROL = "bob@office.example", "carol@outside.example"
BOBS, CAROLS = "office.example/bob", "outside.example/carol"  # their Maildirs
HOST = "localhost"  # as the provider's certificate says
LISTENERS = {"smtp": "opportunistic", "submission": "implicit", "odmr": "opportunistic"}


class Provider(Server):
    """Holds mail for office.example, and is the last stop for outside.example.

    Its ports stay the same over restarts.  `office` adds to the peer's entry.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        office: Mapping[str, Any] | None = None,
        listeners: Mapping[str, str] = LISTENERS,
        **keys: Any,
    ) -> None:
        folder = temporary_folder(case)
        self.authority = Authority(folder)
        self.pair = self.authority.issue(HOST)
        listen = [
            {
                "endpoint": f"tcp:{free_port()}:interface=127.0.0.1",
                "service": service,
                "tls": tls,
            }
            for service, tls in listeners.items()
        ]
        peer = {"user": "office", "domains": ["office.example"]} | dict(office or {})
        tls = {"certificate": str(self.pair.certificate), "key": str(self.pair.key)}
        domains = {
            "office.example": {"deliver": "hold:office"},
            "outside.example": local_domain(),
        }
        keys = {"listen": listen, "tls": tls, "domains": domains, "peers": {"office": peer}} | keys
        super().__init__(
            case,
            configuration(hostname="provider.example", users="users.yaml", **keys),
            folder=folder,
        )
        add_user = ("user", "add", "office", "--cram-md5", "--password-stdin")
        run_mta(self, *add_user, stdin=PASSWORD + "\n")

    @property
    def pin(self) -> str:
        """Its certificate, as a peer writes it that trusts this one alone."""
        return f"sha256:{fingerprint_of(self.pair)}"


def office(
    case: SynchronousTestCase,
    provider: Provider,
    url: str = "",
    keys: Mapping[str, Any] | None = None,
    **peer: Any,
) -> Server:
    """A customer, not started.  All it sends goes through the provider.

    `url` may name ``{PORT}`` by service; `keys` are of its configuration, `peer` of the provider's
    entry in it.
    """
    url = (url or "smtps://office:correct%20horse@localhost:{submission}").format(**provider.ports)
    trust = {} if "tls" in (keys or {}) else {"pin": provider.pin}
    return customer(case, {"connect": url, **trust, **peer}, **(keys or {}))


def customer(case: SynchronousTestCase, peer: Mapping[str, Any], **keys: Any) -> Server:
    """A server that dials one peer, of which this is said, and sends all mail there."""
    entry = {"domains": ["office.example"], "every": "0s"} | dict(peer)
    return Server(
        case,
        configuration(
            hostname="office.example",
            peers={"provider": entry},
            routes={"default": "hold:provider"},
            **keys,
        ),
    )


class Peer:
    """The other end of a connection, played by a test, line by line."""

    def __init__(self, case: SynchronousTestCase, connection: socket.socket) -> None:
        connection.settimeout(DEADLINE)
        case.addCleanup(connection.close)
        self._connection = connection
        self._file = connection.makefile("rb")
        case.addCleanup(self._file.close)

    def say(self, *lines: str) -> None:
        """Send lines, in one segment."""
        self._connection.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def expect(self, start: str) -> str:
        """The next line, which must begin so; of a reply, the last line.

        AssertionError where it does not.
        """
        while True:
            line = self._file.readline().decode().rstrip("\r\n")
            assert line.startswith(start), f"{line!r}, where {start!r} was expected"
            if not (line[:3].isdigit() and line[3:4] == "-"):
                return line

    def expect_end(self) -> None:
        """The connection is closed."""
        assert not self._file.read(), "more was said"

    def hear_content(self) -> str:
        """Everything up to the final dot."""
        lines = []
        while (line := self._file.readline().decode()) != ".\r\n":
            assert line, "the connection ended in the content"
            lines.append(line)
        return "".join(lines)


def dial(case: SynchronousTestCase, provider: Provider, service: str) -> Peer:
    """Connect to a provider, with TLS if its listener begins with it."""
    connection = socket.create_connection(("127.0.0.1", provider.ports[service]), DEADLINE)
    if LISTENERS[service] == "implicit":
        context = ssl.create_default_context(cafile=str(provider.authority.path))
        connection = context.wrap_socket(connection, server_hostname=HOST)
    return Peer(case, connection)


def plain_login() -> str:
    """AUTH PLAIN with the user and the password of the office."""
    return "AUTH PLAIN " + b64encode(f"\0office\0{PASSWORD}".encode()).decode()


def run_mta(server: Server, *arguments: str, stdin: str = "", status: int = 0) -> str:
    """Run ``mta`` with a server's configuration; returns its output, or its errors.

    AssertionError where it does not end with `status`.
    """
    ended = subprocess.run(
        [*MTA, *arguments, "--config", str(server.config)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env=source_environment(),
        check=False,
    )
    if ended.returncode != status or "Traceback" in ended.stderr:
        raise AssertionError(f"exit status {ended.returncode}\n{ended.stdout}{ended.stderr}")
    return ended.stderr if status else ended.stdout


def letter(number: int, author: str = CAROL) -> bytes:
    """A message that can be told from others."""
    return f"From: <{author}>\r\nSubject: {number}\r\n\r\nnumber {number}\r\n".encode()


def numbers(messages: list[bytes]) -> list[int]:
    """Which letters these are, in order of their numbers."""
    return sorted(int(body_of(message).split()[1]) for message in messages)


def enqueue(server: Server, content: bytes, reverse_path: str, forward_path: str) -> None:
    """Put a message into a server's spool from this process."""
    tools = SpoolTools(server.folder / "spool")
    recipient = Recipient(mailbox(forward_path))
    tools.enqueue(Envelope(mailbox(reverse_path), (recipient,)), [content])
    tools.close()


def waiting(folder: Path, state: str = "") -> int:
    """How many messages are in the spool of a server in that folder, in any state or this one."""
    tools = SpoolTools(folder / "spool")
    count = sum(1 for _ in tools.find(Filter(state=state)))
    tools.close()
    return count


def mailbox(address: str) -> Mailbox:
    """An address, taken apart."""
    local_part, _, domain = address.partition("@")
    return Mailbox(local_part, domain)
