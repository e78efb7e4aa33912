"""The service: how it starts, reads its configuration again, and stops."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from zope.interface import implementer

from mta import logs
from mta.interfaces import IMeter, IStatusSource
from mta.maildrop.pickup import Pickup
from mta.metrics import MetricsFault, NullMeter, PrometheusMeter, site
from mta.privileges import PrivilegeFault, drop_root
from mta.service import open_files, systemd, threads, workers
from mta.service.configured import configure
from mta.service.findings import findings, placed, warnings
from mta.service.listeners import CannotStart, Listeners, listen, shown
from mta.service.process import Process
from mta.service.reloader import Reloader
from mta.service.repeating import Repeating
from mta.settings import Settings
from mta.smtp import grammar
from mta.spool.database import SpoolUnusable
from mta.tls import TLSFault
from mta.users import UserFault

STOP_TIMEOUT = 10.0  # seconds that running transactions get when the service stops
CERTIFICATES_EVERY = 10.0  # seconds between looks at the certificate files
PICKUP_EVERY = 1.0  # seconds between looks into the maildrop
TAKE_OVER_EVERY = 10.0  # seconds between looks for mail of processes that died


# What keeps a server from starting, each in one line for a person.
_FAULTS = (CannotStart, MetricsFault, PrivilegeFault, SpoolUnusable, TLSFault, UserFault)


_NOT_OURS = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EROFS)


@implementer(IStatusSource)
class MailService(MultiService):
    """The whole mail transfer agent, as one service."""

    log = Logger()

    def __init__(
        self, path: Path, settings: Settings, reactor: Any, options: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.setName("mta")
        self._path = path
        self._inherited = workers.inherited()
        self._settings = self._inherited.in_force(settings) if self._inherited else settings
        self._reactor = reactor
        self._options = options
        self._meter: IMeter = NullMeter()
        self._watched: IListeningPort | None = None
        self._listeners: Listeners | None = None
        self._workers = workers.Workers(reactor, settings.queue.workers)
        self._starting: Deferred[None] | None = None
        self._is_ready = False
        self._is_stopping = False
        self._log_writer: logs.LogWriter | None = None

    def setServiceParent(self, parent: Any) -> None:
        """Twisted calls this with the application, which may be told how to log."""
        if isinstance(parent, Componentized):
            try:
                self._log_writer = logs.observer(self._options, self._settings.log)
            except OSError as error:
                raise SystemExit(f"cannot write the log: {logs.reason(error)}") from None
            if self._log_writer is not None:
                parent.setComponent(ILogObserver, self._log_writer)
        super().setServiceParent(parent)

    # --- start

    def privilegedStartService(self) -> None:
        """Twisted calls this while it may still bind low ports."""
        super().privilegedStartService()
        self._guard(self._listen)

    def startService(self) -> None:
        """Twisted calls this when the process is what it will be."""
        super().startService()
        if not self._inherited:
            self._workers.take_place()
        open_files.allow()
        self._guard(self._listen)
        self._guard(self._drop_root)
        if not self._inherited:
            self._guard(self._inspect)
        self._guard(self._open)
        self._hear(signal.SIGHUP, self._reloader.ask)
        if self._log_writer is not None:
            self._hear(signal.SIGUSR1, self._log_writer.reopen)
        self._reactor.callWhenRunning(self._start)

    def _guard(self, step: Callable[[], None]) -> None:
        """Take a step of the start; end the process with one line where it fails."""
        try:
            step()
        except _FAULTS as error:
            _refuse(self._options, str(error))
        except OSError as error:
            spool = self._settings.spool
            place = "" if error.filename in (None, spool) else f"{error.filename}: "
            reason = f"cannot use the spool {spool}: {place}{error.strerror or error}"
            if error.errno in _NOT_OURS:
                reason += "; the spool must be a folder that this user may write to"
            _refuse(self._options, reason)
        except KeyboardInterrupt:
            _refuse(self._options, "interrupted while starting")

    def _listen(self) -> None:
        """Open the listeners, if they are not open.  Raises CannotStart or MetricsFault."""
        if self._listeners is not None:
            return
        if self._settings.metrics and not self._inherited:
            self._meter = meter = PrometheusMeter(self)
            self._watched = listen(self._reactor, self._settings.metrics, site(meter, self))
        descriptors = self._inherited.descriptors if self._inherited else ()
        self._listeners = Listeners(self._reactor, self._meter, descriptors)
        self._listeners.open(self._settings.listen)

    def _inspect(self) -> None:
        """Look whether all is as it should be, and say what is not.  Raises CannotStart."""
        # The log is open, here or where twistd's own options say.
        found = [each for each in findings(self._settings) if each.keys != ("log", "file")]
        if fatal := [finding for finding in found if finding.is_fatal]:
            raise CannotStart("\n".join(placed(self._path, fatal)))
        for line in warnings(self._path, found):
            self.log.warn("{finding}", finding=line)

    def _drop_root(self) -> None:
        """Be who the configuration says.  Raises PrivilegeFault or OSError."""
        drop_root(self._settings, self._listeners.sockets if self._listeners else ())

    def _open(self) -> None:
        """Open the spool, and configure.  Raises OSError, TLSFault or UserFault."""
        self._process = Process(Path(self._settings.spool), self._reactor, self._meter)
        configured = configure(self._settings, self._process)
        self._process.begin(configured)
        self._reloader = Reloader(self._path, self._process, self._log_writer, self._reloaded)
        if self._listeners is not None:
            self._listeners.serve(configured)

    def _start(self) -> None:
        """The reactor runs."""
        for number in (signal.SIGINT, signal.SIGTERM):
            ours = signal.getsignal(number)
            if callable(ours):
                signal.signal(number, partial(self._stop_once, ours))
        self._starting = Deferred.fromCoroutine(self._begin()).addErrback(self._failed, "start")

    async def _begin(self) -> None:
        threads.start_all(self._process.threads)
        grammar.compile_patterns()
        await self._process.take_over()
        if self._is_stopping:
            return
        self._process.runner.start()
        self._keep_up_with_peers()
        self._repeat(TAKE_OVER_EVERY, self._process.take_over)
        self._repeat(CERTIFICATES_EVERY, self._process.refresh_certificates)
        if self._inherited:
            workers.live_no_longer_than_first(self._reactor)
            self.log.info("worker ready")
            return
        await self._open_maildrop()
        if self._is_stopping:
            return
        self._say_where()
        self._start_workers()
        self.log.info("ready")
        self._is_ready = True
        systemd.notify("READY=1")
        if interval := systemd.watchdog_interval():
            self._repeat(interval, self._ping_watchdog)

    def _say_where(self) -> None:
        assert self._listeners is not None
        for endpoint, listener in self._listeners.described():
            self.log.info(
                "listening on {endpoint} ({service})",
                endpoint=endpoint,
                service=listener.service.value,
            )
        if self._watched is not None:
            endpoint = shown(self._settings.metrics, self._watched)
            self.log.info("listening on {endpoint} (metrics)", endpoint=endpoint)

    def _start_workers(self) -> None:
        assert self._listeners is not None
        arguments = workers.twistd_arguments(self._options, str(self._path))
        self._workers.start(arguments, self._listeners.ports, self._settings)

    def _keep_up_with_peers(self) -> None:
        """Dial the peers, which is for the first process alone."""
        if not self._inherited:
            configured = self._process.configured
            configured.customer.keep_up(configured.settings.peers.values())

    # --- while it runs

    def _repeat(self, seconds: float, action: Callable[[], Any]) -> None:
        Repeating(seconds, action, self._reactor).setServiceParent(self)

    async def _open_maildrop(self) -> None:
        """Take in what is left there from now on, which is for the first process alone."""
        process = self._process
        in_thread = partial(deferToThreadPool, self._reactor, process.threads)
        pickup = Pickup(process.folder, process.spool, process.accepted_mail, in_thread)

        async def pick_up() -> None:
            await pickup.run(process.configured.settings)

        await pickup.prepare(process.configured.settings)
        self._repeat(PICKUP_EVERY, pick_up)

    async def _ping_watchdog(self) -> None:
        """Say that we live, once something was committed; a full disk is no reason to restart."""
        try:
            await self._process.spool.beat()
        except OSError:
            if self._process.spool.has_ended:
                return
        systemd.notify("WATCHDOG=1")

    def _hear(self, number: signal.Signals, action: Callable[[], None]) -> None:
        """Do that for a signal, when nothing else is being done."""
        signal.signal(number, lambda signum, frame: self._reactor.callFromThread(action))

    def _reloaded(self) -> None:
        """Another configuration is in force."""
        configured = self._process.configured
        self._workers.use(configured.settings)
        if self._listeners is not None:
            self._listeners.serve(configured)
        self._keep_up_with_peers()

    def _failed(self, failure: Failure, what: str) -> None:
        self.log.failure("{what} failed", failure, what=what)

    # --- stop

    def _stop_once(self, ours: Callable[[int, Any], object], number: int, frame: Any) -> None:
        """Pass a signal to stop on to Twisted, which takes a second one for a fault.

        systemd sends one to every process, and the first process another one to its workers.
        """
        if not self._is_stopping:
            self._is_stopping = True
            ours(number, frame)

    def stopService(self) -> Deferred[None]:
        """Twisted calls this when the process is to end."""
        self._is_stopping = True
        self._reloader.stop()
        repeated = maybeDeferred(super().stopService)
        return Deferred.fromCoroutine(self._stop(repeated))

    async def _stop(self, repeated: Deferred[Any]) -> None:
        self.log.info("stopping")
        self._is_ready = False
        systemd.notify("STOPPING=1")
        if self._starting is not None:
            await self._starting
        end = self._reactor.seconds() + STOP_TIMEOUT
        closing = Deferred.fromCoroutine(self._process.configured.close(STOP_TIMEOUT))
        others = Deferred.fromCoroutine(self._workers.stop(2 * STOP_TIMEOUT))
        links = await self._listeners.close() if self._listeners is not None else ()
        for link in links:
            link.close_gently()
        if self._watched is not None:
            await maybeDeferred(self._watched.stopListening)
        # Links that do not end in time are cancelled, which ends them.
        ended = DeferredList([link.ended for link in links if not link.ended.called])
        await ended.addTimeout(STOP_TIMEOUT, self._reactor).addErrback(lambda _: None)
        await closing
        await repeated
        await self._process.stop(max(0.0, end - self._reactor.seconds()))
        await others
        self.log.info("stopped")

    # --- for those who watch

    def counts_by_state(self) -> Mapping[str, tuple[int, float]]:
        """See `IStatusSource.counts_by_state`."""
        return self._process.spool.census()

    def links(self) -> Mapping[str, bool]:
        """See `IStatusSource.links`."""
        files = self._process.peer_status_files
        return {
            name: files.link_since(name) is not None
            for name in self._process.configured.settings.peers
        }

    async def health(self) -> str:
        """See `IStatusSource.health`."""
        if not self._is_ready:
            return "starting or stopping"
        return self._process.spool.trouble


def _refuse(options: Mapping[str, Any], reason: str) -> NoReturn:
    """End the process with this one line."""
    if options.get("pidfile"):
        with suppress(OSError):  # who we are now may not, and twistd takes up what is stale
            Path(options["pidfile"]).unlink()
    status_pipe = options.get("statusPipe")
    if status_pipe is None:
        raise SystemExit(reason) from None
    Logger().error("{reason}", reason=reason)
    # The daemon's parent waits for a word, and hears of no SystemExit.
    os.write(status_pipe, f"1 {reason}".encode())
    os.close(status_pipe)
    raise SystemExit(1) from None
