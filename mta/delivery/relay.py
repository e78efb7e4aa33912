"""The relay: SMTP and LMTP to the next host (RFC 5321 sections 3.6 and 5, RFC 2033).

It finds the hosts of a hop, connects to one after the other until one of them talks to us,
and lets a `Sender` do the talking.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mta.delivery.exchangers import exchangers
from mta.interfaces import (
    ChannelLost,
    DomainNotFound,
    HandshakeFailed,
    HopFailure,
    IDeliveryAgent,
    IMailSource,
    IResolver,
    IRole,
    ResolutionFailed,
)
from mta.link import Link, TLSContext
from mta.mail import Agent, Hop, Outcome, Reply, Security, Status
from mta.smtp import sasl
from mta.smtp.errors import PeerFault
from mta.smtp.opening import SenderConfig
from mta.smtp.sender import Sender

CONNECT_TIMEOUT = 30  # seconds
MOST_ADDRESSES = 10  # tried for one hop at one time
SMTP_PORT = 25


class Dialler:
    """Connects to the hosts of a hop.

    `tls` makes the context for a host, what we demand of it, and the pinned certificate.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        threads: ThreadPool,
        hostname: str,
        resolver: IResolver,
        tls: Callable[[str, Security, str], TLSContext],
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._hostname = hostname
        self._resolver = resolver
        self._tls = tls
        self._links: set[Link] = set()

    def close_gently(self) -> None:
        """Let the conversations under way end at their next good moment."""
        for link in list(self._links):
            link.close_gently()

    async def converse(self, hop: Hop, role: Callable[[SenderConfig], IRole]) -> None:
        """Hold one conversation with the first host of `hop` that talks to us.

        `role` makes the sender that begins it.  Raises HopFailure.
        """
        failure = _deferred("4.4.4", f"No host to send to for {hop}")
        tried = 0
        try:
            async for host, endpoint in self._endpoints(hop):
                try:
                    await self._talk(hop, host, endpoint, role)
                    return
                except HopFailure as one:
                    failure = one
                except ConnectError as error:
                    failure = _deferred("4.4.1", f"Cannot connect to {host}: {error}")
                tried += 1
                if tried >= MOST_ADDRESSES:
                    break
        except DomainNotFound as error:
            failure = self._not_found(hop, error)
        except ResolutionFailed as error:
            failure = _deferred("4.4.3", f"The name servers do not answer: {error}")
        raise failure

    def _not_found(self, hop: Hop, error: DomainNotFound) -> HopFailure:
        """What it means that a name does not exist: whoever wrote it can correct it."""
        if hop.agent is Agent.MX:
            return _failed("5.1.2", f"Domain not found: {error}")
        self.log.error(
            "{hop}: there is no host {name}; correct `routes` or `deliver`, or the DNS",
            hop=str(hop),
            name=str(error),
        )
        return _deferred("4.3.5", f"The next host is not to be found: {error}")

    async def _endpoints(self, hop: Hop) -> AsyncIterator[tuple[str, IStreamClientEndpoint]]:
        """The places to connect to, with the name of the host, the best first."""
        if hop.next_hop.startswith("unix:"):
            path = hop.next_hop.removeprefix("unix:")
            yield "localhost", UNIXClientEndpoint(self._reactor, path, CONNECT_TIMEOUT)
            return
        if hop.agent is Agent.MX:
            hosts = await exchangers(self._resolver, hop.next_hop, self._hostname)
        else:
            hosts = [hop.next_hop]
        port = hop.port or SMTP_PORT
        trouble: Exception | None = None
        for host in hosts:
            try:
                addresses = await self._resolver.addresses(host)
            except (DomainNotFound, ResolutionFailed) as error:
                # Of several hosts that have no address, one that may have one later decides.
                if not isinstance(trouble, ResolutionFailed):
                    trouble = error
                continue
            for address in addresses:
                endpoint = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
                yield host, endpoint(self._reactor, address, port, CONNECT_TIMEOUT)
        if trouble is not None:
            raise trouble

    async def _talk(
        self,
        hop: Hop,
        host: str,
        endpoint: IStreamClientEndpoint,
        role: Callable[[SenderConfig], IRole],
    ) -> None:
        """One connection.  Raises ConnectError or HopFailure."""
        demands = SenderConfig(
            self._hostname,
            lmtp=hop.agent is Agent.LMTP,
            security=hop.security,
            user=hop.user,
            secret=hop.secret,
            derive=self._derive,
        )
        link = Link(
            lambda _: role(demands),
            self._reactor,
            self._tls(host, hop.security, hop.pin),
            tls_at_once=hop.implicit_tls,
        )
        await connectProtocol(endpoint, link)
        self._links.add(link)
        try:
            await link.ended
            return
        except HandshakeFailed as error:
            if hop.security is not Security.OPPORTUNISTIC:
                raise _deferred("4.7.5", f"TLS with {host} failed: {error}") from error
        except (ChannelLost, PeerFault) as error:
            raise _deferred("4.4.2", f"The connection to {host} failed: {error}") from error
        finally:
            self._links.discard(link)
        # TLS was only a wish (RFC 7435): better plain text than no mail.
        await self._talk(replace(hop, security=Security.OFF), host, endpoint, role)

    def _derive(self, password: str, salt: bytes, iterations: int) -> Deferred[bytes]:
        return deferToThreadPool(
            self._reactor, self._threads, sasl.salted_password, password, salt, iterations
        )


@implementer(IDeliveryAgent)
class RelayAgent:
    """Takes mail to MX hosts, smart hosts and LMTP servers."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent.deliver`."""
        await self._dialler.converse(hop, partial(Sender, mail))


def _deferred(enhanced: str, text: str) -> HopFailure:
    return HopFailure(Outcome(Status.DEFERRED, Reply(451, enhanced, (text,))))


def _failed(enhanced: str, text: str) -> HopFailure:
    return HopFailure(Outcome(Status.FAILED, Reply(550, enhanced, (text,))))
