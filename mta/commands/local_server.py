"""The server on this host, for users without the spool."""

from __future__ import annotations

import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import suppress

from mta.mail import Recipient
from mta.settings import ListenerTLS, Service, Settings

REPLY_TIMEOUT = 600.0  # seconds that the server may take for one reply, RFC 5321 section 4.5.3.2.6
# Seconds that it may take to greet; one that stands still must not hold up who hands in the mail.
GREETING_TIMEOUT = 30.0
_PIECE = 65536  # octets
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - listening there is the server's choice


class NoServer(OSError):
    """No server of ours takes mail on this host."""


class Refused(Exception):
    """The server does not take the message; `is_transient`: not now.

    `recipients`: all that do not get it.
    """

    def __init__(self, code: int, text: bytes | str, recipients: tuple[Recipient, ...]) -> None:
        decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        super().__init__(f"{code} {decoded}")
        self.is_transient = 400 <= code < 500
        self.recipients = recipients


def converse(settings: Settings, incoming: int, outgoing: int) -> None:
    """Let the program behind two descriptors talk with the server.

    Raises NoServer or OSError.
    """
    with connect(settings) as server:
        server.settimeout(REPLY_TIMEOUT)
        sources = [incoming, server.fileno()]
        while server.fileno() in sources:
            for source in select.select(sources, [], [])[0]:
                octets = os.read(source, _PIECE)
                if not octets:
                    sources.remove(source)
                if source != incoming:
                    rest = memoryview(octets)
                    while rest:
                        rest = rest[os.write(outgoing, rest) :]
                elif octets:
                    server.sendall(octets)
                else:
                    with suppress(OSError):  # it may have closed first
                        server.shutdown(socket.SHUT_WR)


def connect(settings: Settings) -> socket.socket:
    """A connection to the first listener that answers.  Raises NoServer."""
    tried = []
    for family, address in _places(settings):
        connection = socket.socket(family)
        connection.settimeout(settings.limits.greet_delay + GREETING_TIMEOUT)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            tried.append(address if isinstance(address, str) else f"{address[0]}:{address[1]}")
        else:
            return connection
    where = f"no server answers on {' or '.join(tried)}" if tried else "no listener takes it"
    raise NoServer(f"this user may not write to the spool, and {where}")


def _places(settings: Settings) -> Iterator[tuple[socket.AddressFamily, str | tuple[str, int]]]:
    """The listeners of this host that take mail without TLS and log-in."""
    for listener in settings.listen:
        kind, *arguments = re.split(r"(?<!\\):", listener.endpoint)
        if listener.service is not Service.SMTP or listener.tls in (
            ListenerTLS.IMPLICIT,
            ListenerTLS.REQUIRED,
        ):
            continue
        words = [re.sub(r"\\(.)", r"\1", each) for each in arguments]
        named = dict(each.split("=", 1) for each in words if "=" in each)
        if kind == "unix":
            yield socket.AF_UNIX, named.get("address", words[0])
        elif kind in ("tcp", "tcp6"):
            family = socket.AF_INET6 if kind == "tcp6" else socket.AF_INET
            host = named.get("interface", "::1" if kind == "tcp6" else "127.0.0.1")
            if ":" in host:
                family = socket.AF_INET6
            yield family, (_ANY.get(host, host), int(named.get("port", words[0])))
