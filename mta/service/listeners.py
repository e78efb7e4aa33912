"""The listeners: open as long as the process, and served as configured."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.application.service import Service as TwistedService
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from zope.interface import implementer

from mta.access.admission import TOO_MUCH_WITHOUT_MAIL
from mta.config.endpoints import PROXIED
from mta.interfaces import IFirstRoles, IRole, ISessionMeter
from mta.link import LinkFactory, WaitingRoom
from mta.proxy_protocol import ProxiedFactory
from mta.service import open_files
from mta.service.accepting import RestingPort
from mta.service.configured import Configured
from mta.service.endpoints import adopt, listen, shown
from mta.service.passed_sockets import PassedSockets
from mta.service.process import STOP_TIMEOUT, IConfigurable
from mta.settings import Listener, ListenerTLS, Service
from mta.smtp import replies
from mta.smtp.receiver import Receiver
from mta.smtp.receiver_config import ReceiverConfig


@implementer(IFirstRoles)
class Receivers:
    """The receivers of one listener, which are counted."""

    def __init__(self, config: ReceiverConfig, meter: ISessionMeter) -> None:
        self._config = config
        self._meter = meter

    def first_role(self, client: str) -> IRole | None:
        """See `IFirstRoles.first_role`."""
        if not self._config.access.takes(client):
            return None
        self._meter.session(self._config.service)
        return Receiver(self._config)

    @property
    def refusal(self) -> bytes:
        """The reply to a client that has none.

        It is empty where a TLS handshake comes first.
        """
        if self._config.tls is ListenerTLS.IMPLICIT:
            return b""
        return replies.encode(TOO_MUCH_WITHOUT_MAIL)


@dataclass(frozen=True, slots=True)
class _Open:
    """A listener that is open."""

    listener: Listener
    port: IListeningPort
    factory: LinkFactory
    resting: RestingPort


@implementer(IConfigurable)
class Listeners(TwistedService):
    """The listeners of `settings.listen`, with the sessions on them.

    They are opened while low ports can be bound; no client is answered before the reactor runs.
    `passed` are sockets that systemd has opened.  `inherited` are the descriptors of those that the
    first process opened, where we are a worker.
    Twisted's `StreamServerEndpointService` hides its port, which the log names and workers get.
    """

    def __init__(
        self,
        reactor: Any,
        listeners: Sequence[Listener],
        meter: ISessionMeter,
        passed: PassedSockets,
        inherited: Sequence[int],
    ) -> None:
        self._reactor = reactor
        self._listeners = listeners
        self._meter = meter
        self._passed = passed
        self._inherited = inherited
        self._open: list[_Open] = []
        self._waiting_room = WaitingRoom(reactor)

    def privilegedStartService(self) -> None:
        """Twisted calls this while low ports can be bound.  Raises CannotStart."""
        for number, listener in enumerate(self._listeners):
            factory = LinkFactory(self._reactor, self._waiting_room)
            is_proxied = listener.endpoint.startswith(PROXIED)
            front = ProxiedFactory(factory, self._reactor) if is_proxied else factory
            descriptor = (
                self._inherited[number] if self._inherited else self._passed.take(listener.endpoint)
            )
            if descriptor is None:
                port = listen(self._reactor, listener.endpoint, front)
            else:
                port = adopt(self._reactor, descriptor, front)
            self._open.append(_Open(listener, port, factory, RestingPort(port, self._reactor)))

    def startService(self) -> None:
        """Twisted calls this, and under `twist` nothing before it.  Raises CannotStart."""
        super().startService()
        if not self._open:
            self.privilegedStartService()

    def use(self, configured: Configured) -> None:
        """See `IConfigurable.use`: it counts for new connections."""
        for opened, config in zip(self._open, configured.receivers, strict=True):
            receivers = Receivers(config, self._meter)
            opened.factory.serve(
                receivers,
                configured.server_tls,
                record_per_line=config.service is Service.ODMR,
                refusal=receivers.refusal,
            )
            self._waiting_room.size = open_files.left(config.limits.connections)

    @property
    def ports(self) -> Sequence[IListeningPort]:
        """The ports, in the order of the configuration."""
        return [opened.port for opened in self._open]

    @property
    def sockets(self) -> Iterator[Path]:
        """The files of those that are UNIX sockets, and ours to open."""
        for opened in self._open:
            address = opened.port.getHost()
            if isinstance(address, UNIXAddress) and address.name and not self._inherited:
                yield Path(os.fsdecode(address.name))

    @property
    def unused(self) -> Sequence[str]:
        """The places of sockets of systemd's that no listener has.

        An endpoint ``systemd:`` takes its own in another way.
        """
        kinds = {listener.endpoint.partition(":")[0] for listener in self._listeners}
        return [] if "systemd" in kinds else self._passed.left

    def described(self) -> Iterator[tuple[str, Listener]]:
        """Each listener, with its endpoint as `shown`."""
        for opened in self._open:
            yield shown(opened.listener.endpoint, opened.port), opened.listener

    def stopService(self) -> Deferred[None]:
        """Twisted calls this when the process is to end.

        Fires when no session is left.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for opened in self._open:
            opened.resting.stop()
            if not self._inherited:  # the first process removes the file of a UNIX socket
                await maybeDeferred(opened.port.stopListening)
        links = [link for opened in self._open for link in opened.factory.links]
        for link in links:
            link.close_gently()
        # Links that do not end in time are cancelled, which ends them.
        ended = DeferredList([link.ended for link in links if not link.ended.called])
        await ended.addTimeout(STOP_TIMEOUT, self._reactor).addErrback(lambda _: None)
