"""Numbers for those who watch, and what systemd is told."""

from __future__ import annotations

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IMeter, IStatusSource
from mta.mail import Agent, Envelope, Hop, Mailbox, Outcome, Recipient, Reply, Status
from mta.metrics import MetricsFault, NullMeter, PrometheusMeter, site
from mta.service import systemd
from mta.settings import Service
from mta.spool.tools import SpoolTools
from tests.processes import (
    DEADLINE,
    Server,
    configuration,
    source_environment,
    temporary_folder,
    wait_until,
)

OK = Reply(250, "2.0.0", ("OK",))


@implementer(IStatusSource)
class FakeStatus:
    """The state of a server, which counts how often it is looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.failure: OSError | None = None
        self.problem: str | Deferred[str] = ""

    async def health(self) -> str:
        """As the test says, perhaps later."""
        return self.problem if isinstance(self.problem, str) else await self.problem

    def counts_by_state(self) -> Mapping[str, tuple[int, float]]:
        """Some messages wait."""
        self.looks += 1
        if self.failure:
            raise self.failure
        return {"waiting": (3, 17.0), "held": (0, 0.0)}

    def peers(self) -> Mapping[str, Mapping[str, float]]:
        """One link of two stands."""
        figures = {"link_since": 1.5, "round_trip": 0.25, "answered_by_cache": 3, "refused": 2}
        figures |= {"waiting": 4, "oldest": 16.0}
        return {"office": {"link": 1, **figures}, "branch": {"link": 0}}


class MetricsTests(SynchronousTestCase):
    """What is counted, and looked at."""

    def setUp(self) -> None:
        self.status, self.now = FakeStatus(), 100.0
        self.metrics = PrometheusMeter(self.status, lambda: self.now)

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one sample, None where there is none."""
        value: float | None = self.metrics.registry.get_sample_value(name, labels)
        return value

    def test_interface(self) -> None:
        """Both meters promise what they should."""
        verifyObject(IMeter, self.metrics)
        verifyObject(IMeter, NullMeter())
        verifyObject(IStatusSource, self.status)

    def test_counts(self) -> None:
        """Sessions, messages, replies and commits."""
        self.metrics.session(Service.SMTP)
        self.metrics.accepted(Service.SUBMISSION)
        for _ in range(2):
            self.metrics.replied(OK)
        self.metrics.committed(7, 0.015)
        self.metrics.judged("pass", "none", "fail", "junk")
        self.metrics.filtered("rspamd", "refused")
        self.metrics.limited("failures")
        self.assertEqual(self.value("mta_limited_total", limit="failures"), 1)
        self.assertEqual(self.value("mta_sessions_total", service="smtp"), 1)
        self.assertEqual(self.value("mta_messages_accepted_total", service="submission"), 1)
        self.assertEqual(self.value("mta_replies_total", code="250"), 2)
        self.assertEqual(self.value("mta_commit_jobs_sum"), 7)
        found = {"spf": "pass", "dkim": "none", "dmarc": "fail", "action": "junk"}
        self.assertEqual(self.value("mta_messages_judged_total", **found), 1)
        self.assertEqual(self.value("mta_filtered_total", filter="rspamd", result="refused"), 1)
        self.assertEqual(self.value("mta_commit_seconds_bucket", le="0.02"), 1)

    def test_deliveries(self) -> None:
        """By hop and outcome; no secret shows."""
        relay = Hop(Agent.SMTP, "relay.example", 25, user="me", secret="word")
        self.metrics.know([relay])
        for hop in (Hop(Agent.MX, "a.example"), Hop(Agent.MX, "b.example"), relay):
            self.metrics.attempted(hop, Outcome(Status.RELAYED, OK))
        self.assertEqual(self.value("mta_deliveries_total", hop="mx", outcome="relayed"), 2)
        smtp = "smtp://relay.example:25"
        self.assertEqual(self.value("mta_deliveries_total", hop=smtp, outcome="relayed"), 1)

    def test_hops_that_senders_choose(self) -> None:
        """Domains are one, and so are literals: nobody fills the memory with names."""
        for number in range(200):
            hop = Hop(Agent.SMTP, f"192.0.2.{number}", 25)
            self.metrics.attempted(hop, Outcome(Status.DEFERRED, OK))
        self.assertEqual(self.value("mta_deliveries_total", hop="other", outcome="deferred"), 200)
        [family] = (
            each for each in self.metrics.registry.collect() if each.name == "mta_deliveries"
        )
        self.assertEqual(len(family.samples), 2)  # the number, and since when

    def test_queue_and_links(self) -> None:
        """They are as they are when somebody asks."""
        self.assertEqual(self.status.looks, 0)
        self.assertEqual(self.value("mta_queue_messages", state="waiting"), 3)
        self.assertEqual(self.value("mta_queue_oldest_timestamp_seconds", state="waiting"), 17)
        self.assertIsNone(self.value("mta_queue_oldest_timestamp_seconds", state="held"))
        self.assertEqual(self.value("mta_peer_link", peer="office"), 1)
        self.assertEqual(self.value("mta_peer_link", peer="branch"), 0)
        self.assertEqual(self.value("mta_peer_link_since_timestamp_seconds", peer="office"), 1.5)
        self.assertEqual(self.value("mta_peer_round_trip_seconds", peer="office"), 0.25)
        self.assertIsNone(self.value("mta_peer_round_trip_seconds", peer="branch"))
        self.assertEqual(self.value("mta_peer_waiting_messages", peer="office"), 4)
        self.assertEqual(self.value("mta_peer_oldest_timestamp_seconds", peer="office"), 16)
        self.assertIsNone(self.value("mta_peer_oldest_timestamp_seconds", peer="branch"))
        asked = {"peer": "office", "source": "cache"}
        self.assertEqual(self.value("mta_peer_questions_total", **asked), 3)
        refused = {"peer": "office", "result": "refused"}
        self.assertEqual(self.value("mta_peer_messages_total", **refused), 2)

    def test_not_looked_at_all_the_time(self) -> None:
        """Who asks every second does not have a large queue read every second."""
        for self.now in (100.0, 101.0, 114.0):
            self.value("mta_queue_messages", state="waiting")
        self.assertEqual(self.status.looks, 1)
        self.now = 115.0
        self.value("mta_queue_messages", state="waiting")
        self.assertEqual(self.status.looks, 2)

    def test_a_spool_that_fails(self) -> None:
        """What can't be looked at is left out; the rest is told."""
        self.status.failure = OSError("broken")
        self.metrics.replied(OK)
        self.assertIsNone(self.value("mta_queue_messages", state="waiting"))
        self.assertEqual(self.value("mta_replies_total", code="250"), 1)

    def test_not_installed(self) -> None:
        """Without prometheus-client one line says what to do."""
        with (
            patch.dict(sys.modules, {"prometheus_client": None}),
            self.assertRaises(MetricsFault) as caught,
        ):
            PrometheusMeter(self.status)
        self.assertIn("pip install", str(caught.exception))


class HealthTests(SynchronousTestCase):
    """``/healthz``, in memory."""

    def ask(self, problem: str | Deferred[str]) -> DummyRequest:
        """A request for the page, while the server has that problem."""
        status = FakeStatus()
        status.problem = problem
        request = DummyRequest([b"healthz"])
        request.method = b"GET"
        site(PrometheusMeter(status), status).getResourceFor(request).render(request)
        return request

    def test_well_and_unwell(self) -> None:
        """200 and 503, with the reason."""
        for problem, code, text in (("", 200, b"ok\n"), ("the disk", 503, b"the disk\n")):
            request = self.ask(problem)
            self.assertEqual((request.responseCode, b"".join(request.written)), (code, text))

    def test_who_hangs_up(self) -> None:
        """Who does not wait for the answer gets none, and no fault is logged."""
        looking: Deferred[str] = Deferred()
        request = self.ask(looking)
        request.processingFailed(Failure(ConnectionDone()))
        if not looking.called:
            looking.callback("")
        self.assertEqual(request.written, [])
        self.assertEqual(request.finished, 0)
        self.assertEqual(self.flushLoggedErrors(), [])


class EndpointTests(SynchronousTestCase):
    """A real server that is watched."""

    def get(self, server: Server, path: str) -> tuple[int, str]:
        """The status and the text of a page."""
        url = f"http://127.0.0.1:{server.ports['metrics']}{path}"
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def test_pages(self) -> None:
        """``/metrics`` has the numbers, ``/healthz`` says ok, and there is nothing else."""
        server = Server(self, configuration(metrics="tcp:0:interface=127.0.0.1"))
        server.start()
        server.send(b"Subject: x\r\n\r\nbody\r\n", "bob@office.example")
        server.wait_for_mail("office.example/bob")
        self.assertEqual(self.get(server, "/healthz"), (200, "ok\n"))
        self.assertEqual(self.get(server, "/")[0], 404)
        wait_until(
            lambda: 'outcome="delivered"} 1.0' in self.get(server, "/metrics")[1], "a delivery"
        )
        _, numbers = self.get(server, "/metrics")
        for line in (
            'mta_sessions_total{service="smtp"} 1.0',
            'mta_messages_accepted_total{service="smtp"} 1.0',
            'mta_replies_total{code="354"} 1.0',
            'mta_queue_messages{state="held"} 0.0',
        ):
            self.assertIn(line, numbers)
        self.assertNotIn("mta_commit_jobs_count 0.0", numbers)
        server.stop()
        self.assertNotIn("GET /", server.log)

    def test_a_port_that_is_taken(self) -> None:
        """The start fails in one line."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            server = Server(self, configuration(metrics=f"tcp:{port}:interface=127.0.0.1"))
            with self.assertRaises(AssertionError) as caught:
                server.start()
        self.assertIn(f"cannot listen on tcp:{port}", str(caught.exception))

    def test_the_queue(self) -> None:
        """The numbers of a queue with mail on hold."""
        folder = temporary_folder(self)
        tools = SpoolTools(folder / "spool")
        envelope = Envelope(Mailbox("a", "x.example"), (Recipient(Mailbox("b", "x.example")),))
        tools.hold([tools.enqueue(envelope, [b"\r\n"])])
        tools.close()
        server = Server(self, configuration(metrics="tcp:0:interface=127.0.0.1"), folder=folder)
        server.start()
        self.assertIn('mta_queue_messages{state="held"} 1.0', self.get(server, "/metrics")[1])


class SystemdTests(SynchronousTestCase):
    """sd_notify."""

    def listen(self) -> tuple[socket.socket, str]:
        """A socket such as systemd has, and its address."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        path = str(temporary_folder(self) / "notify")
        listener.bind(path)
        listener.settimeout(DEADLINE)
        return listener, path

    def test_nobody_asks(self) -> None:
        """Without systemd nothing happens, nor where its socket is gone."""
        systemd.notify("READY=1", {})
        systemd.notify("READY=1", {"NOTIFY_SOCKET": "/no/such/socket"})
        self.assertEqual(systemd.watchdog_interval({}), 0)
        self.assertEqual(
            systemd.watchdog_interval({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}), 0
        )

    def test_told(self) -> None:
        """One datagram, to a path or to an abstract address."""
        listener, path = self.listen()
        systemd.notify("READY=1", {"NOTIFY_SOCKET": path})
        self.assertEqual(listener.recv(100), b"READY=1")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
            abstract.bind(f"\0mta-test-{os.getpid()}")
            systemd.notify("READY=1", {"NOTIFY_SOCKET": f"@mta-test-{os.getpid()}"})
            self.assertEqual(abstract.recv(100), b"READY=1")

    def test_a_real_server(self) -> None:
        """It says when it is ready, that it lives, and that it stops."""
        listener, path = self.listen()
        environment = source_environment() | {
            "NOTIFY_SOCKET": path,
            "WATCHDOG_USEC": "200000",
        }
        server = Server(self, configuration(), environment=environment)
        server.start()
        self.assertEqual(listener.recv(100), b"READY=1")
        self.assertEqual(listener.recv(100), b"WATCHDOG=1")
        server.stop()
        listener.settimeout(0)
        said = []
        while not said or said[-1] != b"STOPPING=1":
            said.append(listener.recv(100))
        self.assertEqual(set(said[:-1]), {b"WATCHDOG=1"} if said[:-1] else set())
