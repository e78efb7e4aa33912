"""The network around this host: names, and port 25 in both directions.

It is what the host can find out by itself; the rest only another host can see.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, TimeoutError, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectionClosed,
    ConnectionRefusedError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mta.dns_answer import RecordType
from mta.interfaces import DomainNotFound, IResolver, ResolutionFailed

WELL_KNOWN = ("gmail.com", "outlook.com", "debian.org")  # their servers have nothing in common
SMTP_PORT = 25
TIMEOUT = 5.0  # seconds for a connection, and again for a first line
MAX_LINE = 512  # octets of a first line, RFC 5321 section 4.5.3.1.5
FAMILIES = {4: RecordType.A, 6: RecordType.AAAA}
_REPLY = re.compile(rb"[2-5]\d\d[ -]")
_EVERYWHERE = {4: "0.0.0.0", 6: "::"}  # noqa: S104 (for a moment)


class Unreached(Exception):
    """A server that was not reached: in a few words."""


class Network:
    """The network, as this host sees it.  `port` is that of mail servers."""

    def __init__(self, reactor: Any, resolver: IResolver, port: int = SMTP_PORT) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._port = port

    async def reverse_name(self, address: str) -> str:
        """The name of an address in the DNS; empty without one."""
        try:
            answer = await self._resolver.query(ip_address(address).reverse_pointer, RecordType.PTR)
        except ResolutionFailed:
            return ""
        return next((str(name).rstrip(".").lower() for name in answer.records), "")

    async def addresses(self, name: str) -> Sequence[str]:
        """The addresses of a name in the DNS, without the hosts file."""
        found: list[str] = []
        for kind in FAMILIES.values():
            try:
                found += map(str, (await self._resolver.query(name, kind)).records)
            except ResolutionFailed:
                continue
        return found

    async def why_no_outgoing(self, version: int) -> str:
        """The reason why no mail can leave by IPv4, or IPv6."""
        asked = [
            Deferred.fromCoroutine(self._reach(domain, FAMILIES[version])) for domain in WELL_KNOWN
        ]
        try:
            answers = await DeferredList(asked, fireOnOneCallback=True, consumeErrors=True)
        finally:
            for each in asked:
                each.addErrback(lambda _: None)
                each.cancel()
        if isinstance(answers, tuple):  # one has answered
            return ""
        return "; ".join(dict.fromkeys(failure.getErrorMessage() for _, failure in answers))

    async def _reach(self, domain: str, kind: RecordType) -> None:
        """Get a first line from a mail server of a domain.  Raises Unreached."""
        host = domain
        try:
            for _, host in sorted(await self._resolver.mx(domain)):
                for address in (await self._resolver.query(host, kind)).records:
                    line = await self._first_line(str(address))
                    if not _REPLY.match(line):
                        raise Unreached(f"{host} is not who answers")
                    return
        except (ResolutionFailed, DomainNotFound):
            raise Unreached("the name servers do not answer") from None
        except _FAILURES as error:
            raise Unreached(f"{host}: {_words(error)}") from None
        raise Unreached(f"{domain} has no server there")

    async def reaches_us(self, address: str) -> bool | None:
        """Tell whether a connection to an address of ours arrives here.

        None: it can't be tried, as the port is not free or not for us.
        """
        token = secrets.token_hex(16).encode()
        everywhere = _EVERYWHERE[ip_address(address).version]
        try:
            port = self._reactor.listenTCP(self._port, _Tokens(token), interface=everywhere)
        except CannotListenError:
            return None
        try:
            return await self._first_line(address) == token + b"\r\n"
        except _FAILURES:
            return False
        finally:
            await maybeDeferred(port.stopListening)

    async def _first_line(self, address: str) -> bytes:
        """Connect to an address; returns the first line that is said."""
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        endpoint = kind(self._reactor, address, self._port, timeout=TIMEOUT)
        reader = _FirstLine()
        await connectProtocol(endpoint, reader)
        try:
            return await reader.line.addTimeout(TIMEOUT, self._reactor)
        finally:
            reader.close()


_FAILURES = (ConnectError, ConnectionClosed, TimeoutError, OSError)


class _FirstLine(Protocol):
    """Waits for a line."""

    def __init__(self) -> None:
        self.line: Deferred[bytes] = Deferred()
        self._octets = b""

    def dataReceived(self, data: bytes) -> None:
        """Twisted calls this with what comes."""
        self._octets += data
        if not self.line.called and (b"\n" in data or len(self._octets) > MAX_LINE):
            self.line.callback(self._octets.partition(b"\n")[0] + b"\n")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted calls this at the end."""
        if not self.line.called:
            self.line.errback(reason)

    def close(self) -> None:
        """Hang up."""
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]


class _Tokens(Factory):
    """Says a token to each client."""

    noisy = False

    def __init__(self, token: bytes) -> None:
        self._token = token

    def buildProtocol(self, address: object) -> Protocol:
        """Make the protocol of one client."""
        return _Token(self._token)


class _Token(Protocol):
    """Says a token, and hangs up."""

    def __init__(self, token: bytes) -> None:
        self._token = token

    def connectionMade(self) -> None:
        """Twisted calls this when it is connected."""
        assert self.transport is not None
        self.transport.write(self._token + b"\r\n")
        self.transport.loseConnection()


def _words(error: BaseException) -> str:
    """An error in a few words."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, (ConnectTimeout, TimeoutError)):
        return "no answer"
    if isinstance(error, ConnectionClosed):
        return "hung up at once"
    return getattr(error, "strerror", None) or str(error).rstrip(".") or type(error).__name__
