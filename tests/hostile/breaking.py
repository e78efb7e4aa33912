"""Clients that break off, in the clear or under TLS, and the ways in which they do."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from itertools import count

from tests.processes import DEADLINE

_RESETS = struct.pack("ii", 1, 0)  # SO_LINGER: what closes resets
_RECORD = b"\x17\x03\x03"  # of TLS, with data
_SOURCES = count(1)


class Client:
    """A connection in the clear, from a host that was never there before."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def say(self, octets: bytes) -> None:
        """Send these."""
        self.socket.sendall(octets)

    def hear(self) -> bytes:
        """Wait for a reply; returns all that has come."""
        heard = b""
        while heard[-2:] != b"\r\n" or heard.splitlines()[-1][3:4] != b" ":
            octets = self.receive()
            assert octets, heard
            heard += octets
        return heard

    def receive(self) -> bytes:
        """The octets that come next; none: it is over."""
        return self.socket.recv(65536)

    def wait_for_end(self) -> None:
        """Wait until the server has closed or reset the connection."""
        with contextlib.suppress(ConnectionError):
            while self.socket.recv(65536):
                pass
        self.socket.close()


def connected(port: int) -> Client:
    """A client that was greeted."""
    source = f"127.7.{next(_SOURCES)}.1"
    client = Client(socket.create_connection(("127.0.0.1", port), DEADLINE, (source, 0)))
    client.hear()
    return client


class StartingClient(Client):
    """A client whose STARTTLS was answered; `hello`: the first octets of its TLS."""

    def __init__(self, port: int) -> None:
        super().__init__(connected(port).socket)
        for command in (b"EHLO client.example\r\n", b"STARTTLS\r\n"):
            self.say(command)
            self.hear()
        self.tls = ClientTLS()
        self.hello = self.tls.begin()


class ClientTLS:
    """TLS of a client, without a connection: octets go to `incoming`, and come from `outgoing`."""

    def __init__(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing)

    def begin(self) -> bytes:
        """The first octets of the handshake."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.session.do_handshake()
        return self.outgoing.read()


class SecureClient(Client):
    """A client under TLS."""

    def __init__(self, port: int) -> None:
        starting = StartingClient(port)
        super().__init__(starting.socket)
        starting.say(starting.hello)
        self.tls = starting.tls
        self._until_done(self.tls.session.do_handshake)

    def say(self, octets: bytes) -> None:
        """Send these, encrypted."""
        self.socket.sendall(self.sealed(octets))

    def sealed(self, octets: bytes) -> bytes:
        """The records that these become."""
        self.tls.session.write(octets)
        return self.tls.outgoing.read()

    def receive(self) -> bytes:
        """The octets that come next."""
        return self._until_done(self.tls.session.read)

    def _until_done(self, action: Callable[[], bytes | None]) -> bytes:
        while True:
            try:
                return action() or b""
            except ssl.SSLWantReadError:
                self.socket.sendall(self.tls.outgoing.read())
                self.tls.incoming.write(self.socket.recv(65536))
            finally:
                self.socket.sendall(self.tls.outgoing.read())


def reset(client: Client) -> None:
    """Reset the connection (RST)."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS)
    client.socket.close()


def close(client: Client) -> None:
    """Close it, and read nothing more."""
    client.socket.close()


def half_close(client: Client) -> None:
    """Say that nothing more comes, and read to the end."""
    client.socket.shutdown(socket.SHUT_WR)
    client.wait_for_end()


def close_tls(client: SecureClient) -> None:
    """End TLS as it should be, and no more."""
    with contextlib.suppress(ssl.SSLWantReadError):
        client.tls.session.unwrap()
    client.socket.sendall(client.tls.outgoing.read())
    client.wait_for_end()


def alert(client: SecureClient) -> None:
    """Send a fatal alert, as if the server had sent octets that nobody can decrypt."""
    client.tls.incoming.write(_RECORD + b"\0\x20" + bytes(32))
    with contextlib.suppress(ssl.SSLError):
        client.tls.session.read()
    said = client.tls.outgoing.read()
    assert said, "no alert"
    client.socket.sendall(said)
    client.wait_for_end()


def clear_alert(client: SecureClient) -> None:
    """Send a fatal alert that is not encrypted, as somebody on the way can."""
    client.socket.sendall(b"\x15\x03\x03\0\x02\x02\x28")
    client.wait_for_end()


def garbage(client: SecureClient) -> None:
    """Send a record of octets that nobody has encrypted."""
    client.socket.sendall(_RECORD + b"\1\0" + bytes(range(256)))
    client.wait_for_end()


def clear_text(client: SecureClient) -> None:
    """Put the end of content behind the records, in the clear."""
    client.socket.sendall(b"\r\n.\r\nQUIT\r\n")
    client.wait_for_end()


def changed_record(client: SecureClient) -> None:
    """Say the end of content in a record of which one bit is changed."""
    said = client.sealed(b"\r\n.\r\n")
    client.socket.sendall(said[:-1] + bytes([said[-1] ^ 1]))
    client.wait_for_end()


def half_record(client: SecureClient) -> None:
    """Send the end of content in a record that lacks its last octet."""
    client.socket.sendall(client.sealed(b"\r\n.\r\n")[:-1])
    half_close(client)


ENDS: list[Callable[[Client], None]] = [reset, close, half_close]
SECURE_ENDS: list[Callable[[SecureClient], None]] = [
    *(reset, close, half_close, close_tls, alert, clear_alert, garbage),
    *(clear_text, changed_record, half_record),
]
