"""Numbers for a monitoring system, by HTTP: ``/metrics`` as Prometheus reads it, and ``/healthz``.

What happens is counted as it happens.  What the queue and the links are like is looked at when
somebody asks, in a thread, and not again at once where looking takes long.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from mta.interfaces import IMeter
from mta.mail import Agent, Hop, Outcome, Reply
from mta.settings import Service

MIN_AGE = 15.0  # seconds that what was looked at in the queue is told again
SHARE = 20  # and this many times as long as the look took
BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # jobs
LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)  # seconds


class MetricsFault(Exception):
    """There can be no metrics: one line for a person."""


def require_prometheus() -> ModuleType:
    """The module prometheus_client.  Raises MetricsFault where it is not installed."""
    try:
        return importlib.import_module("prometheus_client")
    except ImportError:
        raise MetricsFault(
            "`metrics` needs the package prometheus-client, which is not installed:"
            f" {sys.executable} -m pip install prometheus-client"
        ) from None


class Observed(Protocol):
    """What is looked at when somebody asks.  Both may block, and raise OSError."""

    def census(self) -> Mapping[str, tuple[int, float]]:
        """By state: how many messages, and when the oldest came, in seconds since the epoch."""

    def links(self) -> Mapping[str, bool]:
        """By peer: whether a turned connection stands."""


@implementer(IMeter)
class NoMeter:
    """Counts nothing, for nobody asks."""

    def know(self, hops: Collection[Hop]) -> None:
        """See `IMeter.know`."""

    def session(self, service: Service) -> None:
        """See `IMeter.session`."""

    def accepted(self, service: Service) -> None:
        """See `IMeter.accepted`."""

    def replied(self, reply: Reply) -> None:
        """See `IMeter.replied`."""

    def attempted(self, hop: Hop, outcome: Outcome) -> None:
        """See `IMeter.attempted`."""

    def committed(self, jobs: int, seconds: float) -> None:
        """See `IMeter.committed`."""


@implementer(IMeter)
class Metrics:
    """Counts by prometheus-client, in a registry of its own."""

    def __init__(self, observed: Observed, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises MetricsFault where prometheus-client is not installed."""
        prometheus = require_prometheus()
        self.registry = registry = prometheus.CollectorRegistry()
        self._sessions = prometheus.Counter(
            "mta_sessions", "Connections taken", ["service"], registry=registry
        )
        self._accepted = prometheus.Counter(
            "mta_messages_accepted", "Messages taken over", ["service"], registry=registry
        )
        self._replies = prometheus.Counter(
            "mta_replies", "Replies given", ["code"], registry=registry
        )
        self._attempts = prometheus.Counter(
            "mta_deliveries", "Attempts for one recipient", ["hop", "outcome"], registry=registry
        )
        self._batches = prometheus.Histogram(
            "mta_commit_jobs", "Jobs in one commit", buckets=BATCHES, registry=registry
        )
        self._latency = prometheus.Histogram(
            "mta_commit_seconds", "Length of one commit", buckets=LATENCIES, registry=registry
        )
        prometheus.ProcessCollector(registry=registry)
        registry.register(_Collector(observed, clock))
        self._known: Mapping[Hop, str] = {}

    def know(self, hops: Collection[Hop]) -> None:
        """See `IMeter.know`."""
        self._known = {hop: str(hop) for hop in hops}

    def session(self, service: Service) -> None:
        """See `IMeter.session`."""
        self._sessions.labels(service.value).inc()

    def accepted(self, service: Service) -> None:
        """See `IMeter.accepted`."""
        self._accepted.labels(service.value).inc()

    def replied(self, reply: Reply) -> None:
        """See `IMeter.replied`."""
        self._replies.labels(str(reply.code)).inc()

    def attempted(self, hop: Hop, outcome: Outcome) -> None:
        """See `IMeter.attempted`."""
        # Hops are as many as the configuration has; domains and literals as many as senders like.
        name = "mx" if hop.agent is Agent.MX else self._known.get(hop, "other")
        self._attempts.labels(name, outcome.status.value).inc()

    def committed(self, jobs: int, seconds: float) -> None:
        """See `IMeter.committed`."""
        self._batches.observe(jobs)
        self._latency.observe(seconds)


class _Collector:
    """What prometheus-client asks, in a thread, when it is asked itself."""

    log = Logger()

    def __init__(self, observed: Observed, clock: Callable[[], float]) -> None:
        self._observed = observed
        self._clock = clock
        self._families: list[Any] = []
        self._until = 0.0

    def describe(self) -> Iterable[Any]:
        """Nothing yet: to be registered takes no look at the queue."""
        return ()

    def collect(self) -> Iterator[Any]:
        """The families, looked at anew where it is time."""
        begun = self._clock()
        if begun >= self._until:
            try:
                self._families = list(self._look())
            except BlockingIOError:
                pass  # somebody else looks now: what was seen last is told again
            except OSError as error:
                self.log.warn("metrics: {error}", error=str(error))
                self._families = []
            ended = self._clock()
            self._until = ended + max(MIN_AGE, SHARE * (ended - begun))
        yield from self._families

    def _look(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        size = GaugeMetricFamily("mta_queue_messages", "Messages in the queue", labels=["state"])
        oldest = GaugeMetricFamily(
            "mta_queue_oldest_timestamp_seconds", "When the oldest came", labels=["state"]
        )
        link = GaugeMetricFamily(
            "mta_peer_link", "Whether a turned connection stands", labels=["peer"]
        )
        for state, (count, since) in self._observed.census().items():
            size.add_metric([state], count)
            if count:
                oldest.add_metric([state], since)
        for peer, stands in self._observed.links().items():
            link.add_metric([peer], float(stands))
        yield from (size, oldest, link)


def site(metrics: Metrics, health: Callable[[], Coroutine[Any, Any, str]]) -> Site:
    """The web site.  `health` returns what is wrong, in one line, or nothing."""
    from prometheus_client.twisted import MetricsResource

    root = Resource()
    root.putChild(b"metrics", MetricsResource(registry=metrics.registry))
    root.putChild(b"healthz", _Health(health))
    return _QuietSite(root)


class _QuietSite(Site):
    """Who watches asks every few seconds, which is no event."""

    noisy = False

    def log(self, request: object) -> None:
        """Twisted calls this after each request."""


class _Health(Resource):
    """200 where all is well, 503 where it is not."""

    isLeaf = True
    log = Logger()

    def __init__(self, health: Callable[[], Coroutine[Any, Any, str]]) -> None:
        super().__init__()
        self._health = health

    def render_GET(self, request: Request) -> int:
        """Twisted calls this for each request."""
        asking = Deferred.fromCoroutine(self._health())
        request.notifyFinish().addErrback(lambda _: asking.cancel())  # it hung up
        asking.addCallback(self._answer, request).addErrback(self._failed)
        return NOT_DONE_YET

    def _answer(self, problem: str, request: Request) -> None:
        request.setResponseCode(503 if problem else 200)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        request.write(f"{problem or 'ok'}\n".encode())
        request.finish()

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("the health can't be told", failure)
