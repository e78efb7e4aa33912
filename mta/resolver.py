"""The domain name system, as far as mail needs it (RFC 5321 section 5.1), over twisted.names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import idna
from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError, ConnectError
from twisted.names import client, dns
from twisted.names.error import DNSNameError, DomainError, ResolverError
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import DomainNotFound, IResolver, ResolutionFailed

HOSTS = Path("/etc/hosts")
RESOLV_CONF = "/etc/resolv.conf"
TIMEOUTS = (1, 3, 5, 10)  # seconds for the first try and the next ones, of each server
MAX_TTL = 3600.0  # seconds that an answer is remembered at most
MAX_NEGATIVE_TTL = 300.0  # seconds, for an answer that there is nothing
TCP_TIMEOUT = 10  # seconds, for the connection and for the answer
MAX_ANSWERS = 10_000  # remembered; the domains of mail are anybody's choice
MAX_ALIASES = 8  # queries for one name, where a server does not follow CNAME records


@implementer(IResolver)
class Resolver:
    """Asks `servers`, as (address, port), or those of the system where there are none.

    Addresses in the `hosts` file come before what name servers say.
    """

    def __init__(
        self, reactor: Any, servers: Sequence[tuple[str, int]] = (), hosts: Path = HOSTS
    ) -> None:
        self._client = NameServers(
            resolv=None if servers else RESOLV_CONF,
            servers=list(servers) or None,
            timeout=TIMEOUTS,
            reactor=reactor,
        )
        self._clock = reactor
        self._hosts = _HostsFile(hosts)
        self._answers: OrderedDict[tuple[bytes, int], _Answer] = OrderedDict()

    def close(self) -> None:
        """Look no more whether the system's name servers changed; queries still work."""
        call = getattr(self._client, "_parseCall", None)  # Twisted has no public way
        if call is not None and call.active():
            call.cancel()

    async def mx(self, domain: str) -> Sequence[tuple[int, str]]:
        """See `IResolver.mx`.  A null MX (RFC 7505) is the one host with an empty name."""
        records = await self._records(domain, dns.MX)
        return [(record.preference, _text(record.name.name)) for record in records]

    async def addresses(self, host: str) -> Sequence[str]:
        """See `IResolver.addresses`.

        IPv6 and IPv4 take turns, so that neither can hide the other's failure for long.  Raises
        DomainNotFound where a host has no address, ResolutionFailed where that is uncertain.
        """
        if _is_address(host):
            return [host]
        known = self._hosts.addresses(_octets(host))
        if known:
            return known
        results: list[tuple[bool, Any]] = await DeferredList(
            [Deferred.fromCoroutine(self._records(host, kind)) for kind in (dns.AAAA, dns.A)],
            consumeErrors=True,
        )
        six, four = (records if succeeded else () for succeeded, records in results)
        found = [record for record in chain(*zip_longest(six, four)) if record is not None]
        if not found:
            raise _worst([result for succeeded, result in results if not succeeded], host)
        return [str(ip_address(record.address)) for record in found]

    async def _records(self, name: str, kind: int) -> Sequence[Any]:
        """The records of one type, from memory if may be.

        Raises DomainNotFound or ResolutionFailed.
        """
        key = _octets(name), kind
        now = self._clock.seconds()
        answer = self._answers.pop(key, None)
        if answer is None or answer.until <= now:
            answer = await self._ask(*key)
        if answer.until > now:
            self._answers[key] = answer
            if len(self._answers) > MAX_ANSWERS:
                self._answers.popitem(last=False)
        if not answer.exists:
            raise DomainNotFound(name)
        return answer.records

    async def _ask(self, name: bytes, kind: int) -> _Answer:
        """Ask the name servers, following aliases.  Raises ResolutionFailed."""
        ttl = MAX_TTL
        for _ in range(MAX_ALIASES):
            asked = name
            try:
                answers, authority, _ = await self._client.query(dns.Query(name, kind, dns.IN))
            except DNSNameError as error:
                return self._nothing(error.args[0].authority, exists=False)
            except _FAILURES as error:
                raise ResolutionFailed(f"{_text(asked)}: {_reason(error)}") from error
            aliases = {
                _lower(header.name): header for header in answers if header.type == dns.CNAME
            }
            while alias := aliases.pop(name, None):
                name = _lower(alias.payload.name)
                ttl = min(ttl, alias.ttl)
            found = [
                header for header in answers if header.type == kind and _lower(header.name) == name
            ]
            if found:
                until = self._clock.seconds() + min(ttl, *(header.ttl for header in found))
                return _Answer(True, [header.payload for header in found], until)
            if name == asked:
                return self._nothing(authority, exists=True)
        raise ResolutionFailed(f"{_text(name)}: too many aliases")

    def _nothing(self, authority: Iterable[Any], exists: bool) -> _Answer:
        """An answer without records; its time to live is in the SOA record (RFC 2308)."""
        ttl = max(
            (
                min(header.ttl, header.payload.minimum, MAX_NEGATIVE_TTL)
                for header in authority
                if header.type == dns.SOA
            ),
            default=0.0,
        )
        return _Answer(exists, (), self._clock.seconds() + ttl)


class NameServers(client.Resolver):
    """Asks one name server after the other, until one gives an answer that can be used.

    Twisted's own class asks the next one only where one says nothing.
    """

    def queryUDP(self, queries: Sequence[dns.Query], timeout: Any = None) -> Deferred[dns.Message]:
        """Twisted calls this; `timeout`: seconds for the first try and the next ones."""
        timeouts: Sequence[int] = timeout or TIMEOUTS
        return Deferred.fromCoroutine(self._query_in_turn(queries, timeouts))

    async def _query_in_turn(
        self, queries: Sequence[dns.Query], timeouts: Sequence[int]
    ) -> dns.Message:
        """The first answer, or else the error that was told instead.

        Raises TimeoutError where nothing was said, ResolverError where that made no sense.
        Who answered something else is not asked again, who said nothing is.
        """
        said: dns.Message | None = None
        servers = [*self.servers, *self.dynServers]
        for seconds in timeouts:
            silent = []
            for server in servers:
                try:
                    message = await self._query_one(server, queries, seconds)
                except (dns.DNSQueryTimeoutError, ConnectError, CannotListenError, OSError):
                    silent.append(server)
                    continue
                if _is_answer(message, queries):
                    return message
                said = message
            servers = silent
        if said is None:
            raise TimeoutError(queries)
        if said.rCode in _ANSWERS:
            raise ResolverError("an answer that makes no sense")
        return said

    async def _query_one(
        self, server: tuple[str, int], queries: Sequence[dns.Query], seconds: int
    ) -> dns.Message:
        """What one name server says; by TCP where it does not fit a datagram (RFC 7766)."""
        message: dns.Message = await self._query(server, queries, seconds)
        if not message.trunc:
            return message
        address, port = server
        endpoint = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        connecting = endpoint(self._reactor, address, port, TCP_TIMEOUT)
        protocol = await connectProtocol(connecting, _Stream(_Bystander()))
        try:
            message = await protocol.query(queries, TCP_TIMEOUT)
        finally:
            protocol.transport.abortConnection()
        return message

    def _connectedProtocol(self, interface: str = "") -> Any:
        """Twisted calls this for each question."""
        protocol = super()._connectedProtocol(interface)
        receive = protocol.datagramReceived

        def receive_whole(data: bytes, address: tuple[str, int]) -> None:
            if _is_whole(data):
                receive(data, address)

        protocol.datagramReceived = receive_whole
        return protocol


class _Stream(dns.DNSProtocol):
    """A connection to a name server."""

    def stringReceived(self, data: bytes) -> None:
        """Twisted calls this."""
        if _is_whole(data):
            super().stringReceived(data)


class _Bystander:
    """What a connection to a name server tells of itself, and nobody wants to know."""

    def connectionMade(self, protocol: dns.DNSProtocol) -> None:
        """Twisted calls this."""

    def connectionLost(self, protocol: dns.DNSProtocol) -> None:
        """Twisted calls this."""

    def messageReceived(self, message: dns.Message, protocol: dns.DNSProtocol) -> None:
        """Twisted calls this with answers to nothing."""


_ANSWERS = frozenset({dns.OK, dns.ENAME})  # to all others another name server may know better


def _is_whole(data: bytes) -> bool:
    """Whether a message has as many records as it says, or says that it does not have all.

    Twisted leaves out what it can't decode: what remains would say that there is nothing.
    """
    message = dns.Message()
    try:
        message.fromStr(data)
    except (EOFError, ValueError):
        return False
    answers, authority = int.from_bytes(data[6:8], "big"), int.from_bytes(data[8:10], "big")
    found = len(message.answers), len(message.authority)
    return bool(message.trunc) or found == (answers, authority)


def _is_answer(message: dns.Message, queries: Sequence[dns.Query]) -> bool:
    """Whether a name server answered what it was asked: with records, or that there are none."""
    if not message.answer or message.rCode not in _ANSWERS or message.trunc:
        return False
    if list(message.queries) != list(queries):
        return False
    if message.answers or message.auth or message.rCode == dns.ENAME:
        return True
    # Who only names other servers knows nothing of it (RFC 2308 section 2.2).
    kinds = {header.type for header in message.authority}
    return dns.SOA in kinds or dns.NS not in kinds


_FAILURES = (DomainError, ResolverError, TimeoutError, ConnectError, CannotListenError, OSError)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What name servers said; true `until`, in seconds of the clock."""

    exists: bool
    records: Sequence[Any]
    until: float


_RCODES = {  # RFC 1035 section 4.1.1
    dns.EFORMAT: "format error",
    dns.ESERVER: "server failure",
    dns.ENOTIMP: "not implemented",
    dns.EREFUSED: "refused",
}


def _reason(error: Exception) -> str:
    """Why a name server gave no answer, in words."""
    message = error.args[0] if error.args else None
    if isinstance(message, dns.Message):
        return _RCODES.get(message.rCode, f"error {message.rCode}")
    return str(error) or type(error).__name__


class _HostsFile:
    """Addresses that the system knows without asking, see hosts(5)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = 0
        self._addresses: dict[bytes, list[str]] = {}

    def addresses(self, name: bytes) -> list[str]:
        """The addresses of a host; none where the file does not name it."""
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._changed:
                self._addresses = self._read()
                self._changed = changed
        except OSError:
            self._addresses, self._changed = {}, 0
        found = self._addresses.get(name)
        if not found and (name == b"localhost" or name.endswith(b".localhost")):
            return ["::1", "127.0.0.1"]  # RFC 6761 section 6.3
        return list(found or ())

    def _read(self) -> dict[bytes, list[str]]:
        addresses: dict[bytes, list[str]] = {}
        for line in self._path.read_bytes().splitlines():
            address, *names = line.partition(b"#")[0].lower().split() or [b""]
            text = address.decode("ascii", "replace")
            if _is_address(text):
                for name in names:
                    own = addresses.setdefault(name, [])
                    if text not in own:
                        own.append(text)
        return addresses


def _worst(failures: Sequence[Failure], host: str) -> Exception:
    """Why a host has no address: only where everybody answered is that for good."""
    for failure in failures:
        if isinstance(failure.value, ResolutionFailed):
            return failure.value
    return DomainNotFound(host)


def _octets(name: str) -> bytes:
    """A name as queries have it, in A-labels.  Raises DomainNotFound where it can't exist."""
    name = name.rstrip(".").lower()
    try:
        octets = name.encode("ascii") if name.isascii() else idna.encode(name, uts46=True)
    except idna.IDNAError:
        raise DomainNotFound(name) from None
    if len(octets) > 253 or not all(0 < len(label) < 64 for label in octets.split(b".")):
        raise DomainNotFound(name)  # RFC 1035 section 2.3.4
    return octets


def _lower(name: dns.Name) -> bytes:
    return name.name.lower()


def _text(name: bytes) -> str:
    return name.decode("ascii", "replace").rstrip(".").lower()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
