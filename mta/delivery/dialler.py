"""Connections to the hosts of a hop, with a sender on each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from mta.delivery.hosts import SMTP_PORT, HostFinder
from mta.delivery.own_host import OwnHost
from mta.delivery.per_host import PerHost, most_telling
from mta.delivery.silence import SilenceLimit
from mta.interfaces import (
    IClientTLS,
    ILinkWatch,
    IMailSource,
    IOwnHost,
    IResolver,
    IRole,
    ISigner,
)
from mta.link import HANDSHAKE_TIMEOUT, Link
from mta.mail import Agent, Hop, Outcome, Reply, Security, Status
from mta.queued import HopFailure, Pressure
from mta.session import ChannelLost, HandshakeFailed
from mta.smtp import sasl
from mta.smtp.dialogue import ATTENDED_GREETING, GREETING
from mta.smtp.errors import PeerFault
from mta.smtp.opening import SenderConfig
from mta.smtp.pipelining import KnownHosts
from mta.smtp.sender import Sender
from mta.smtp.steps import InSteps, at_once
from mta.smtp.turn import TurnRequest

CONNECT_TIMEOUT = 30  # seconds: as Postfix has it
HURRIED_CONNECT_TIMEOUT = 10  # seconds: while hops wait for a connection
MAX_ADDRESSES = 10  # addresses: tried for one hop at one time
HURRIED_ADDRESSES = 4  # addresses: while hops wait for a connection
MAX_TIME = 1800.0  # seconds: in which other addresses are tried; six silent hosts take it
UNIX = "unix:"
NO_SERVER = "no server listens"  # the reason where a connection is refused
NO_HOST = Outcome(Status.DEFERRED, Reply(451, "4.4.4", ("There is no host to send to",)))


class Transfer:
    """The mail for a hop, and the last sender that had it.

    `watch` hears of round trips.
    """

    def __init__(
        self,
        source: IMailSource,
        turn: TurnRequest | None = None,
        watch: ILinkWatch | None = None,
    ) -> None:
        self._source = source
        self._turn = turn
        self._watch = watch
        self._sender: Sender | None = None

    def new_sender(self, config: SenderConfig) -> IRole:
        """Make the sender for one more connection."""
        if self._watch is not None:
            config = replace(config, watch=self._watch)
        self._sender = Sender(self._source, config, self._turn)
        return self._sender

    @property
    def has_sent_all(self) -> bool:
        """Tell whether the last connection left nothing unsent."""
        return self._sender is None or self._sender.has_sent_all

    @property
    def broke_off(self) -> bool:
        """Tell whether the last connection was lost while mail was sent."""
        return self._sender is not None and self._sender.failure is not None


@dataclass(frozen=True, slots=True)
class HostAddress:
    """A host by name, and one of its addresses, to be tried."""

    host: str
    address: str


class Dialler:
    """Connects to the hosts of a hop.

    `own` is this host, as others know it.  Under `pressure` silent hosts have less time, and
    where it is `attended` by a person at a terminal.  `signer` signs what is sent.
    `in_steps` does long work step by step.
    """

    def __init__(
        self,
        reactor: Any,
        threads: ThreadPool,
        hostname: str,
        resolver: IResolver,
        tls: IClientTLS,
        own: IOwnHost | None = None,
        private_exchangers: bool = True,
        pressure: Pressure | None = None,
        signer: ISigner | None = None,
        *,
        attended: bool = False,
        in_steps: InSteps = at_once,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._hostname = hostname
        self._finder = HostFinder(resolver, own or OwnHost(hostname), private_exchangers)
        self._tls = tls
        self._in_steps = in_steps
        self._pressure = pressure or Pressure()
        self._greeting = ATTENDED_GREETING if attended else GREETING
        self._handshake_timeout = ATTENDED_GREETING.timeout if attended else HANDSHAKE_TIMEOUT
        self._signer = signer
        self._known_hosts = KnownHosts()
        self._links: set[Link] = set()

    def close_gently(self) -> None:
        """Let the conversations under way end at their next good moment."""
        for link in list(self._links):
            link.close_gently()

    def seconds(self) -> float:
        """The time on the clock of the dialler."""
        now: float = self._reactor.seconds()
        return now

    async def converse(self, hop: Hop, transfer: Transfer) -> None:
        """Hold one conversation with the first host that talks to us.  Raises HopFailure."""
        failures: list[Outcome] = []
        async for candidate in self.addresses(hop, failures):
            try:
                await self.talk(hop, candidate, transfer)
                return
            except HopFailure as failure:
                failures.append(failure.outcome)
        raise HopFailure(most_telling(failures or [NO_HOST]))

    async def addresses(self, hop: Hop, failures: list[Outcome]) -> AsyncIterator[HostAddress]:
        """The addresses of the hosts of a hop, the best first.

        None comes twice.  The failures to find others are added to `failures`.
        """
        if hop.next_hop.startswith(UNIX):
            yield HostAddress("localhost", hop.next_hop)
            return
        tried: set[str] = set()
        end = self._reactor.seconds() + MAX_TIME
        try:
            async for host in self._finder.hosts(hop):
                if host.failure is not None:
                    failures.append(host.failure)
                for address in host.addresses:
                    most = HURRIED_ADDRESSES if self._pressure.is_scarce else MAX_ADDRESSES
                    if len(tried) >= most or self._reactor.seconds() >= end:
                        return
                    if address not in tried:
                        tried.add(address)
                        yield HostAddress(host.name, address)
        except HopFailure as failure:
            failures.append(failure.outcome)

    async def talk(
        self, hop: Hop, candidate: HostAddress, transfer: Transfer, mail: PerHost | None = None
    ) -> None:
        """Hold one conversation with one host.  Raises HopFailure where that is not possible.

        `mail`: where the sender does not ask for it in time, the host may be given up.
        """
        try:
            await self._talk(hop, candidate, transfer, mail)
        except HandshakeFailed as error:
            if hop.security is not Security.OPPORTUNISTIC:
                raise _deferred("4.7.5", f"TLS with {candidate.host} failed: {error}") from error
            # TLS was optional (RFC 7435): better plain text than no mail.
            await self.talk(replace(hop, security=Security.OFF), candidate, transfer, mail)
        except (ChannelLost, PeerFault) as error:
            text = f"The connection to {candidate.host} failed: {error}"
            raise _deferred("4.4.2", text) from error
        except ConnectingCancelledError as error:
            raise CancelledError from error  # as everywhere else
        except ConnectError as error:
            reason = _why_unconnected(hop, error)
            raise _deferred("4.4.1", f"Cannot connect to {candidate.host}: {reason}") from error

    async def _talk(
        self, hop: Hop, candidate: HostAddress, transfer: Transfer, mail: PerHost | None
    ) -> None:
        link = Link(
            transfer.new_sender(self._config(hop, candidate.address)),
            self._reactor,
            self._tls.for_host(candidate.host, hop.security, hop.pin),
            tls_at_once=hop.implicit_tls,
            handshake_timeout=self._handshake_timeout,
        )
        try:
            await connectProtocol(self._endpoint(candidate.address, hop.port or SMTP_PORT), link)
        except OSError as error:  # there is no socket for it
            raise ConnectError(error.errno, error.strerror or "") from error
        self._links.add(link)
        limit = None
        if mail is not None:
            limit = SilenceLimit(link, mail, self._pressure, self._reactor)
        try:
            await link.ended
        finally:
            if limit is not None:
                limit.stop()
            self._links.discard(link)

    def _config(self, hop: Hop, address: str) -> SenderConfig:
        return SenderConfig(
            self._hostname,
            lmtp=hop.agent is Agent.LMTP,
            security=hop.security,
            user=hop.user,
            secret=hop.secret,
            derive=self._derive,
            host=self._known_hosts.record(f"{address}:{hop.port}", self._reactor.seconds()),
            in_steps=self._in_steps,
            greeting=self._greeting,
            signer=self._signer,
            tells_origins=hop.xforward,
        )

    def _endpoint(self, address: str, port: int) -> IStreamClientEndpoint:
        timeout = HURRIED_CONNECT_TIMEOUT if self._pressure.is_scarce else CONNECT_TIMEOUT
        if address.startswith(UNIX):
            path = address.removeprefix(UNIX)
            return UNIXClientEndpoint(self._reactor, path, timeout)
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        return kind(self._reactor, address, port, timeout)

    def _derive(self, password: str, salt: bytes, iterations: int) -> Deferred[bytes]:
        return deferToThreadPool(
            self._reactor, self._threads, sasl.own_salted_password, password, salt, iterations
        )


def _why_unconnected(hop: Hop, error: ConnectError) -> str:
    """The reason why there is no connection, in words for the operator."""
    port = "its socket" if hop.next_hop.startswith(UNIX) else f"port {hop.port or SMTP_PORT}"
    if isinstance(error, ConnectionRefusedError):
        return f"{NO_SERVER} on {port}"
    if isinstance(error, TimeoutError):
        return f"no answer from {port}"
    return str(error)


def _deferred(enhanced: str, text: str) -> HopFailure:
    return HopFailure(Outcome(Status.DEFERRED, Reply(451, enhanced, (text,))))
