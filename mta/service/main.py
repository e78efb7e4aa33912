"""The service: the order in which its parts start and stop."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from mta.inspectors.list_zone import PROBE_INTERVAL
from mta.interfaces import IMeter
from mta.logs.file import reason
from mta.logs.writer import LogWriter, observer
from mta.maildrop.pickup import Pickup
from mta.metrics import NullMeter
from mta.pairing.mailboxes import domains_with_mailboxes, lists_for_relays
from mta.privileges import drop_root
from mta.service import open_files, systemd, threads
from mta.service.configured import configure
from mta.service.endpoints import CannotStart
from mta.service.findings import findings, placed, warnings
from mta.service.inheritance import inherited
from mta.service.lending import LendingService
from mta.service.lifeline import exit_with_parent
from mta.service.listeners import Listeners
from mta.service.monitoring import MetricsService, Status
from mta.service.nodes import NodeExchange
from mta.service.passed_sockets import PassedSockets, passed_descriptors
from mta.service.peer_looks import PeerLooks
from mta.service.peers import PeersService
from mta.service.periodic import Periodic
from mta.service.process import STOP_TIMEOUT, Process
from mta.service.questions import QuestionsService
from mta.service.refusal import refusals
from mta.service.reloader import Reloader
from mta.service.signals import StopSignals, call_on, let_through
from mta.service.workers import Workers, twistd_arguments
from mta.settings import Settings
from mta.smtp import grammar
from mta.spool.place import SpoolPlace

CERTIFICATES_INTERVAL = 10.0  # seconds between looks at the certificate files
MAILBOXES_INTERVAL = 1.0  # seconds between looks at the lists of mailboxes that peers told
NODES_INTERVAL = 5.0  # seconds between looks at what other nodes tell
PICKUP_INTERVAL = 1.0  # seconds between looks into the maildrop
REPORTS_INTERVAL = 60.0  # seconds between batches of counts for reports, and looks for due ones
TAKE_OVER_INTERVAL = 10.0  # seconds between looks for mail of processes that died


class MailService(MultiService):
    """The whole mail transfer agent, as one service.

    Its children are the workers and the front: all that brings mail, or changes what we do, and
    ends at once when we stop.  The process, with the spool and the runner, ends after that.
    """

    log = Logger()

    def __init__(
        self, path: Path, settings: Settings, reactor: Any, options: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.setName("mta")
        self._path = path
        self._inherited = inherited()
        self._settings = self._inherited.in_force(settings) if self._inherited else settings
        self._reactor = reactor
        self._options = options
        self._status = Status()
        self._stop_signals = StopSignals()
        self._workers = Workers(reactor, settings.queue.workers)
        if not self._inherited:
            self._workers.setServiceParent(self)
        self._front = MultiService()
        self._front.setServiceParent(self)
        self._listeners: Listeners | None = None
        self._metrics: MetricsService | None = None
        self._starting: Deferred[None] | None = None
        self._log_writer: LogWriter | None = None

    def setServiceParent(self, parent: Any) -> None:
        """Twisted calls this with the application, whose log we write."""
        if isinstance(parent, Componentized):
            try:
                self._log_writer = observer(self._options, self._settings.log, self._settings.node)
            except OSError as error:
                raise SystemExit(f"cannot write the log: {reason(error)}") from None
            if self._log_writer is not None:
                parent.setComponent(ILogObserver, self._log_writer)
        super().setServiceParent(parent)

    # --- start

    def privilegedStartService(self) -> None:
        """Twisted calls this while it may still bind low ports."""
        with refusals(self._options, self._settings.spool):
            self._make_listeners()
            super().privilegedStartService()

    def startService(self) -> None:
        """Twisted calls this when the process has the user of ``--uid``."""
        with refusals(self._options, self._settings.spool):
            open_files.allow()
            listeners = self._make_listeners()
            super().startService()
            drop_root(self._settings, listeners.sockets)
            if not self._inherited:
                self._inspect()
            self._open(listeners)
        call_on(self._reactor, signal.SIGHUP, self._reloader.ask)
        if self._log_writer is not None:
            call_on(self._reactor, signal.SIGUSR1, self._log_writer.reopen)
        let_through()
        self._reactor.callWhenRunning(self._start)

    def _make_listeners(self) -> Listeners:
        """Make the listeners, which open when the front starts.  Raises MetricsFault."""
        if self._listeners is None:
            meter: IMeter = NullMeter()
            if self._settings.metrics and not self._inherited:
                self._metrics = MetricsService(self._reactor, self._settings.metrics, self._status)
                self._metrics.setServiceParent(self._front)
                meter = self._metrics.meter
            descriptors = self._inherited.descriptors if self._inherited else ()
            self._meter = meter
            passed = PassedSockets(passed_descriptors())
            self._listeners = Listeners(
                self._reactor, self._settings.listen, meter, passed, descriptors
            )
            self._listeners.setServiceParent(self._front)
        return self._listeners

    def _inspect(self) -> None:
        """Log the findings.  Raises CannotStart where one is fatal."""
        # The log is open, here or where twistd's own options say.
        found = [each for each in findings(self._settings) if each.keys != ("log", "file")]
        if fatal := [finding for finding in found if finding.is_fatal]:
            raise CannotStart("\n".join(placed(self._path, fatal)))
        for line in warnings(self._path, found):
            self.log.warn("{finding}", finding=line)

    def _open(self, listeners: Listeners) -> None:
        """Open the spool, and configure.  Raises OSError, or as `configure` does."""
        self._process = self._status.process = Process(
            SpoolPlace.of(self._settings),
            self._reactor,
            self._meter,
            is_first=not self._inherited,
        )
        shared = self._process.spool if self._process.place.database else None
        self._peers = PeersService(self._reactor, is_first=not self._inherited, shared=shared)
        between = (QuestionsService(self._process), LendingService(self._process))
        for each in between:
            each.setServiceParent(self._front)
        parts = (self._process, self._workers, listeners, self._peers, *between)
        configured = configure(self._settings, self._process, lists_for_relays(self._settings))
        configured.router.use(domains_with_mailboxes(self._settings))
        for part in parts:
            part.use(configured)
        self._reloader = Reloader(self._path, self._process, parts, self._log_writer)
        self._reloader.setServiceParent(self._front)
        self._process.reloader = self._reloader
        self._peers.setServiceParent(self._front)
        if not self._inherited:
            PeerLooks(self._process, self._reactor).setServiceParent(self._front)

    def _start(self) -> None:
        """Go on with the start, now that the reactor runs."""
        self._stop_signals.watch()
        self._starting = Deferred.fromCoroutine(self._begin()).addErrback(self._failed)

    async def _begin(self) -> None:
        """Start to deliver, and then all that may bring more mail."""
        process = self._process
        threads.start_all(process.threads)
        process.hashing.start()
        self._reactor.addSystemEventTrigger("during", "shutdown", process.hashing.stop)
        threads.start_all(process.hashing, process.hashing.max)
        grammar.compile_patterns()
        await process.take_over()
        if self._stop_signals.has_come:
            return
        process.runner.start()
        self._peers.begin()
        self._repeat(TAKE_OVER_INTERVAL, process.take_over)
        self._repeat(CERTIFICATES_INTERVAL, process.refresh_certificates)
        self._repeat(MAILBOXES_INTERVAL, process.refresh_mailboxes)
        self._repeat(REPORTS_INTERVAL, process.reports.flush)
        self._repeat(PROBE_INTERVAL, process.probe_lists)
        if self._inherited:
            exit_with_parent(self._reactor)
            self.log.info("worker ready")
        else:
            await self._begin_first()

    async def _begin_first(self) -> None:
        """Start all that the first process does alone."""
        assert self._listeners is not None
        await self._open_maildrop()
        if self._stop_signals.has_come:
            return
        self._tell_endpoints(self._listeners)
        self._workers.start_all(
            twistd_arguments(self._options, str(self._path)), self._listeners.ports
        )
        self.log.info("ready")
        self._status.is_ready = True
        self._repeat(REPORTS_INTERVAL, self._process.send_reports)
        if self._process.place.database:
            self._repeat(NODES_INTERVAL, NodeExchange(self._process).run)
            self._repeat(NODES_INTERVAL, self._peers.look)
        systemd.notify("READY=1")
        if interval := systemd.watchdog_interval():
            self._repeat(interval, self._ping_watchdog)

    async def _open_maildrop(self) -> None:
        """Take in the mail of the maildrop from now on."""
        process = self._process
        in_thread = partial(deferToThreadPool, self._reactor, process.threads)
        pickup = Pickup(process.folder, process.intake, process.accepted_mail, in_thread)

        async def pick_up() -> None:
            configured = process.configured
            await pickup.run(configured.settings, configured.local_inspectors)

        await pickup.prepare(process.configured.settings)
        self._repeat(PICKUP_INTERVAL, pick_up)

    def _tell_endpoints(self, listeners: Listeners) -> None:
        for place in listeners.unused:
            self.log.warn(
                "systemd listens on {place} for no listener of `listen`: call `mta init` again",
                place=place,
            )
        for endpoint, listener in listeners.described():
            self.log.info(
                "listening on {endpoint} ({service})",
                endpoint=endpoint,
                service=listener.service.value,
            )
        if self._metrics is not None:
            self.log.info("listening on {endpoint} (metrics)", endpoint=self._metrics.shown)

    def _repeat(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        Periodic(seconds, action, self._reactor).setServiceParent(self._front)

    async def _ping_watchdog(self) -> None:
        """Tell systemd that we live, once something was committed.

        A full disk is no reason to restart.
        """
        try:
            await self._process.spool.beat()
        except OSError:
            if self._process.spool.has_ended:
                return
        systemd.notify("WATCHDOG=1")

    def _failed(self, failure: Failure) -> None:
        self.log.failure("start failed", failure)

    # --- stop

    def stopService(self) -> Deferred[None]:
        """Twisted calls this when the process is to end."""
        Service.stopService(self)  # the children stop in the order of `_stop`
        self._stop_signals.has_come = True
        stopped = Deferred.fromCoroutine(self._stop()).addErrback(self._not_stopped)
        # Twisted then cuts all connections, in this call: it must not be in that of one of them.
        return stopped.addBoth(lambda _: deferLater(self._reactor, 0))

    async def _stop(self) -> None:
        self.log.info("stopping")
        self._status.is_ready = False
        systemd.notify("STOPPING=1")
        if self._starting is not None:
            await self._starting
        end = self._reactor.seconds() + STOP_TIMEOUT
        workers = maybeDeferred(self._workers.stopService)
        await maybeDeferred(self._front.stopService)
        await self._process.stop(max(0.0, end - self._reactor.seconds()))
        await workers
        self.log.info("stopped")

    def _not_stopped(self, failure: Failure) -> None:
        self.log.failure("stop failed", failure)
