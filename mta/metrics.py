"""Monitoring by HTTP: ``/metrics``, as Prometheus reads it, and ``/healthz``.

Events are counted as they happen.  The queue and the links are looked at in a thread, when
monitoring asks; where that takes long, the next answers repeat the last one for a while.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from mta.interfaces import IMeter, IStatusSource
from mta.mail import Agent, Hop, Outcome, Reply
from mta.session import ANSWER_SOURCES
from mta.settings import Service

MIN_PAUSE = 15.0  # seconds between two looks at the queue: monitoring asks about as often
PAUSE_FACTOR = 20  # times as long as a look took: a large queue costs 5 % of a thread at most
BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # jobs
LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)  # seconds


class MetricsFault(Exception):
    """There can be no metrics: one line for the operator."""


def require_prometheus() -> ModuleType:
    """Import prometheus_client.  Raises MetricsFault where it is not installed."""
    try:
        return importlib.import_module("prometheus_client")
    except ImportError:
        raise MetricsFault(
            "`metrics` needs the package prometheus-client, which is not installed:"
            f" {sys.executable} -m pip install prometheus-client"
        ) from None


@implementer(IMeter)
class NullMeter:
    """Counts nothing, where there are no metrics."""

    def know(self, hops: Collection[Hop]) -> None:
        """See `IMeter.know`."""

    def session(self, service: Service) -> None:
        """See `IMeter.session`."""

    def accepted(self, service: Service) -> None:
        """See `IMeter.accepted`."""

    def replied(self, reply: Reply) -> None:
        """See `IMeter.replied`."""

    def limited(self, limit: str) -> None:
        """See `IMeter.limited`."""

    def attempted(self, hop: Hop, outcome: Outcome) -> None:
        """See `IMeter.attempted`."""

    def committed(self, jobs: int, seconds: float) -> None:
        """See `IMeter.committed`."""

    def judged(self, spf: str, dkim: str, dmarc: str, action: str) -> None:
        """See `IMeter.judged`."""

    def filtered(self, filter: str, result: str) -> None:
        """See `IMeter.filtered`."""


@implementer(IMeter)
class PrometheusMeter:
    """Counts by prometheus-client, in a registry of its own."""

    def __init__(self, source: IStatusSource, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises MetricsFault where prometheus-client is not installed."""
        prometheus = require_prometheus()
        self.registry = registry = prometheus.CollectorRegistry()
        self._sessions = prometheus.Counter(
            "mta_sessions", "Connections taken", ["service"], registry=registry
        )
        self._accepted = prometheus.Counter(
            "mta_messages_accepted", "Messages taken over", ["service"], registry=registry
        )
        self._judged = prometheus.Counter(
            "mta_messages_judged",
            "Messages from outside, by what they turned out to be",
            ["spf", "dkim", "dmarc", "action"],
            registry=registry,
        )
        self._replies = prometheus.Counter(
            "mta_replies", "Replies given", ["code"], registry=registry
        )
        self._limited = prometheus.Counter(
            "mta_limited", "Users and hosts at a limit", ["limit"], registry=registry
        )
        self._attempts = prometheus.Counter(
            "mta_deliveries", "Attempts for one recipient", ["hop", "outcome"], registry=registry
        )
        self._filtered = prometheus.Counter(
            "mta_filtered", "Results of filters", ["filter", "result"], registry=registry
        )
        self._batches = prometheus.Histogram(
            "mta_commit_jobs", "Jobs in one commit", buckets=BATCHES, registry=registry
        )
        self._latency = prometheus.Histogram(
            "mta_commit_seconds", "Length of one commit", buckets=LATENCIES, registry=registry
        )
        prometheus.ProcessCollector(registry=registry)
        registry.register(_StatusCollector(source, clock))
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

    def judged(self, spf: str, dkim: str, dmarc: str, action: str) -> None:
        """See `IMeter.judged`."""
        self._judged.labels(spf, dkim, dmarc, action).inc()

    def replied(self, reply: Reply) -> None:
        """See `IMeter.replied`."""
        self._replies.labels(str(reply.code)).inc()

    def limited(self, limit: str) -> None:
        """See `IMeter.limited`."""
        self._limited.labels(limit).inc()

    def attempted(self, hop: Hop, outcome: Outcome) -> None:
        """See `IMeter.attempted`."""
        # The configuration has few hops; the domains and literals of senders have no bound.
        name = "mx" if hop.agent is Agent.MX else self._known.get(hop, "other")
        self._attempts.labels(name, outcome.status.value).inc()

    def committed(self, jobs: int, seconds: float) -> None:
        """See `IMeter.committed`."""
        self._batches.observe(jobs)
        self._latency.observe(seconds)

    def filtered(self, filter: str, result: str) -> None:
        """See `IMeter.filtered`."""
        self._filtered.labels(filter, result).inc()


class _StatusCollector:
    """Turns the state of the server into metrics.

    prometheus-client calls it in a thread.
    """

    log = Logger()

    def __init__(self, source: IStatusSource, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._families: list[Any] = []
        self._next_look = 0.0

    def describe(self) -> Iterable[Any]:
        """Describe nothing: to register a collector takes no look at the queue."""
        return ()

    def collect(self) -> Iterator[Any]:
        """The metrics, read again where the last look is long ago."""
        begun = self._clock()
        if begun >= self._next_look:
            try:
                self._families = list(self._look())
            except BlockingIOError:
                pass  # another thread looks at the queue now: repeat what was seen last
            except OSError as error:
                self.log.warn("metrics: {error}", error=str(error))
                self._families = []
            ended = self._clock()
            self._next_look = ended + max(MIN_PAUSE, PAUSE_FACTOR * (ended - begun))
        yield from self._families

    def _look(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily

        size = GaugeMetricFamily("mta_queue_messages", "Messages in the queue", labels=["state"])
        oldest = GaugeMetricFamily(
            "mta_queue_oldest_timestamp_seconds", "When the oldest came", labels=["state"]
        )
        for state, (count, since) in self._source.counts_by_state().items():
            size.add_metric([state], count)
            if count:
                oldest.add_metric([state], since)
        yield from (size, oldest, *_of_peers(self._source.peers()))


def _of_peers(peers: Mapping[str, Mapping[str, float]]) -> Iterator[Any]:
    """The metrics of links with peers, and of what went over them."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for figure, name, told in (
        ("link", "mta_peer_link", "Whether a turned connection stands"),
        ("link_since", "mta_peer_link_since_timestamp_seconds", "When the link began"),
        ("round_trip", "mta_peer_round_trip_seconds", "Round trip, as measured last"),
        ("waiting", "mta_peer_waiting_messages", "Messages that wait for the peer"),
        ("oldest", "mta_peer_oldest_timestamp_seconds", "When the oldest of them came"),
    ):
        gauge = GaugeMetricFamily(name, told, labels=["peer"])
        for peer, figures in peers.items():
            if figure in figures:
                gauge.add_metric([peer], figures[figure])
        yield gauge
    questions = CounterMetricFamily(
        "mta_peer_questions", "Questions whether a mailbox exists", labels=["peer", "source"]
    )
    messages = CounterMetricFamily(
        "mta_peer_messages", "Messages of peers, by what became of them", labels=["peer", "result"]
    )
    for peer, figures in peers.items():
        for source in ANSWER_SOURCES:
            questions.add_metric([peer, source], figures.get(f"answered_by_{source}", 0))
        for result in ("passed_through", "refused", "sealed"):
            messages.add_metric([peer, result], figures.get(result, 0))
    yield from (questions, messages)


def site(meter: PrometheusMeter, source: IStatusSource) -> Site:
    """The web site with both pages."""
    from prometheus_client.twisted import MetricsResource

    root = Resource()
    root.putChild(b"metrics", MetricsResource(registry=meter.registry))
    root.putChild(b"healthz", _Health(source))
    return _QuietSite(root)


class _QuietSite(Site):
    """A site that logs no requests: monitoring sends one every few seconds."""

    noisy = False

    def log(self, request: object) -> None:
        """Twisted calls this after each request."""


class _Health(Resource):
    """The page ``/healthz``: 200 where all is well, 503 with the problem."""

    isLeaf = True
    log = Logger()

    def __init__(self, source: IStatusSource) -> None:
        super().__init__()
        self._source = source

    def render_GET(self, request: Request) -> int:
        """Twisted calls this for each request."""
        looking = Deferred.fromCoroutine(self._source.health())
        request.notifyFinish().addErrback(lambda _: looking.cancel())  # the client hung up
        looking.addCallback(self._answer, request).addErrback(self._failed)
        return NOT_DONE_YET

    def _answer(self, problem: str, request: Request) -> None:
        request.setResponseCode(503 if problem else 200)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        request.write(f"{problem or 'ok'}\n".encode())
        request.finish()

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("no answer to /healthz", failure)
