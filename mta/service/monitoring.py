"""Monitoring: the state of the process, and the HTTP listener for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from zope.interface import implementer

from mta.interfaces import IStatusSource
from mta.metrics import PrometheusMeter, site
from mta.service.accepting import RestingPort
from mta.service.endpoints import listen, shown
from mta.service.process import Process


@implementer(IStatusSource)
class Status:
    """The state of this process.

    `is_ready` is true from when it takes mail until it stops; `process` is there before that.
    """

    process: Process

    def __init__(self) -> None:
        self.is_ready = False

    def counts_by_state(self) -> Mapping[str, tuple[int, float]]:
        """See `IStatusSource.counts_by_state`."""
        return self.process.spool.counts_by_state()

    def peers(self) -> Mapping[str, Mapping[str, float]]:
        """See `IStatusSource.peers`."""
        names = self.process.configured.settings.peers
        held = self.process.spool.held_by_peer() if names else {}
        return {name: self._figures(name, *held.get(name, (0, 0.0))) for name in names}

    def _figures(self, peer: str, waiting: int, oldest: float) -> Mapping[str, float]:
        files = self.process.peer_status_files
        status, since = files.read(peer), files.link_since(peer)
        figures = {**status.counts, "link": float(since is not None), "waiting": waiting}
        if waiting:
            figures["oldest"] = oldest
        if since is not None:
            figures["link_since"] = since
        if status.round_trip is not None:
            figures["round_trip"] = status.round_trip
        return figures

    async def health(self) -> str:
        """See `IStatusSource.health`."""
        if not self.is_ready:
            return "starting or stopping"
        return self.process.spool.failure


class MetricsService(Service):
    """The listener for monitoring, on the endpoint `metrics`.  Raises MetricsFault."""

    def __init__(self, reactor: Any, endpoint: str, status: Status) -> None:
        self.meter = PrometheusMeter(status)
        self._reactor = reactor
        self._endpoint = endpoint
        self._site = site(self.meter, status)
        self._port: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        """Twisted calls this while low ports can be bound.  Raises CannotStart."""
        self._port = listen(self._reactor, self._endpoint, self._site)
        RestingPort(self._port, self._reactor)

    def startService(self) -> None:
        """Twisted calls this, and under `twist` nothing before it.  Raises CannotStart."""
        super().startService()
        if self._port is None:
            self.privilegedStartService()

    @property
    def shown(self) -> str:
        """The endpoint, with the port that the system chose for 0."""
        assert self._port is not None
        return shown(self._endpoint, self._port)

    def stopService(self) -> Deferred[Any] | None:
        """Twisted calls this when the process is to end."""
        super().stopService()
        return maybeDeferred(self._port.stopListening) if self._port is not None else None
