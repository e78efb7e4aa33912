"""The relay: SMTP and LMTP to the next host (RFC 5321 sections 3.6 and 5, RFC 2033).

The hosts of a hop are tried in order until one of them has taken the mail, or refused it: a
`Sender` does the talking on each connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mta.delivery.hosts import SMTP_PORT, HostFinder
from mta.delivery.own_host import OwnHost
from mta.delivery.patience import Patience
from mta.delivery.per_host import PerHost, Suspects, most_telling
from mta.delivery.steps import Steps
from mta.interfaces import IClientTLS, IDeliveryAgent, IMailSource, IOwnHost, IResolver, IRole
from mta.link import Link
from mta.mail import Agent, Hop, Outcome, Reply, Security, Status
from mta.queued import HopFailure, Pressure
from mta.session import ChannelLost, HandshakeFailed
from mta.smtp import sasl
from mta.smtp.errors import PeerFault
from mta.smtp.opening import SenderConfig
from mta.smtp.pipelining import KnownHosts
from mta.smtp.sender import Sender

CONNECT_TIMEOUT = 30  # seconds
HURRIED_CONNECT_TIMEOUT = 10  # seconds, while hops wait for a connection
HURRIED_ADDRESSES = 4  # likewise
MAX_ADDRESSES = 10  # tried for one hop at one time
MAX_TIME = 1800.0  # seconds since the first was tried in which another may be: six that say nothing
UNIX = "unix:"
NO_HOST = Outcome(Status.DEFERRED, Reply(451, "4.4.4", ("There is no host to send to",)))

MakeRole = Callable[[SenderConfig], IRole]


class Dialler:
    """Connects to the hosts of a hop.

    `own` is what other hosts know this one by.  Under `pressure` hosts have less time to say
    something.
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
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._hostname = hostname
        self._finder = HostFinder(resolver, own or OwnHost(hostname), private_exchangers)
        self._tls = tls
        self._in_steps = Steps(reactor)
        self._pressure = pressure or Pressure()
        self._hosts = KnownHosts()
        self._links: set[Link] = set()

    def close_gently(self) -> None:
        """Let the conversations under way end at their next good moment."""
        for link in list(self._links):
            link.close_gently()

    def seconds(self) -> float:
        """The time on the clock that we go by."""
        now: float = self._reactor.seconds()
        return now

    async def converse(self, hop: Hop, role: MakeRole) -> None:
        """Hold one conversation with the first host of `hop` that talks to us.

        `role` makes the sender that begins it.  Raises HopFailure.
        """
        failures: list[Outcome] = []
        async for host, address in self._places(hop, failures):
            if await self._try(hop, host, address, role, failures):
                return
        raise HopFailure(most_telling(failures or [NO_HOST]))

    async def deliver(self, hop: Hop, mail: PerHost) -> None:
        """Send mail to the hosts of `hop` in order, until none is left of the one or the other.

        Raises HopFailure where no host took or refused anything.
        """
        failures: list[Outcome] = []
        is_answered = False
        skipped = ""
        async for host, address in self._places(hop, failures):
            if host == skipped:
                continue
            is_answered = await self._send(hop, host, address, mail, failures) or is_answered
            if is_answered and mail.is_through:
                return
            skipped = host if mail.is_same_everywhere else ""
            mail.leave_host()
        if not is_answered:
            raise HopFailure(most_telling(failures or [NO_HOST]))
        mail.finish(most_telling(failures) if failures else None)

    async def _send(
        self, hop: Hop, host: str, address: str, mail: PerHost, failures: list[Outcome]
    ) -> bool:
        """Send mail to one address, on another connection where one broke off after it took some.

        Returns whether the host took or refused anything, or nothing is left to send.
        """
        sender: Sender | None = None

        def role(config: SenderConfig) -> IRole:
            nonlocal sender
            sender = Sender(mail, config)
            return sender

        is_answered = False
        while await mail.begin():
            talked = await self._try(hop, host, address, role, failures, mail)
            is_answered = is_answered or talked or mail.is_content_at_fault
            broke_off = sender is not None and sender.failure is not None
            if mail.is_through or not mail.progress or not (broke_off or mail.has_unsent):
                return is_answered
        return True

    async def _places(self, hop: Hop, failures: list[Outcome]) -> AsyncIterator[tuple[str, str]]:
        """The hosts of a hop and where to connect to them, the best first, none twice.

        What is wrong with the others is added to `failures`.
        """
        if hop.next_hop.startswith(UNIX):
            yield "localhost", hop.next_hop
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
                        yield host.name, address
        except HopFailure as failure:
            failures.append(failure.outcome)

    async def _try(
        self,
        hop: Hop,
        host: str,
        address: str,
        role: MakeRole,
        failures: list[Outcome],
        mail: PerHost | None = None,
    ) -> bool:
        """Hold one conversation; whether it could be held.  If not, `failures` has why."""
        try:
            await self._talk(hop, host, address, role, mail)
            return True
        except HopFailure as failure:
            failures.append(failure.outcome)
        except ConnectingCancelledError as error:
            raise CancelledError from error  # as everywhere else
        except ConnectError as error:
            failures.append(_deferred("4.4.1", f"Cannot connect to {host}: {error}").outcome)
        return False

    async def _talk(
        self, hop: Hop, host: str, address: str, role: MakeRole, mail: PerHost | None
    ) -> None:
        """One connection.  Raises ConnectError or HopFailure."""
        config = self._config(hop, address)
        link = Link(
            role(config),
            self._reactor,
            self._tls.for_host(host, hop.security, hop.pin),
            tls_at_once=hop.implicit_tls,
        )
        await connectProtocol(self._endpoint(address, hop.port or SMTP_PORT), link)
        self._links.add(link)
        patience = Patience(link, mail, self._pressure, self._reactor)
        try:
            await link.ended
            return
        except HandshakeFailed as error:
            if hop.security is not Security.OPPORTUNISTIC:
                raise _deferred("4.7.5", f"TLS with {host} failed: {error}") from error
        except (ChannelLost, PeerFault) as error:
            raise _deferred("4.4.2", f"The connection to {host} failed: {error}") from error
        finally:
            patience.end()
            self._links.discard(link)
        # TLS was only a wish (RFC 7435): better plain text than no mail.
        await self._talk(replace(hop, security=Security.OFF), host, address, role, mail)

    def _config(self, hop: Hop, address: str) -> SenderConfig:
        return SenderConfig(
            self._hostname,
            lmtp=hop.agent is Agent.LMTP,
            security=hop.security,
            user=hop.user,
            secret=hop.secret,
            derive=self._derive,
            host=self._hosts.record(f"{address}:{hop.port}", self._reactor.seconds()),
            in_steps=self._in_steps,
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


@implementer(IDeliveryAgent)
class RelayAgent:
    """Takes mail to MX hosts, smart hosts and LMTP servers."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._suspects = Suspects()

    async def deliver(self, hop: Hop, mail: IMailSource) -> None:
        """See `IDeliveryAgent.deliver`."""
        await self._dialler.deliver(hop, PerHost(mail, self._suspects, self._dialler.seconds))


def _deferred(enhanced: str, text: str) -> HopFailure:
    return HopFailure(Outcome(Status.DEFERRED, Reply(451, enhanced, (text,))))
