"""Worker processes: the same service, on the same listeners and spool.

The first process opens the listeners and starts the workers, which inherit them (`inheritance`):
any idle process takes the next connection.  The leases of the spool keep their mail apart.  A
worker that dies is started again, and none outlives the first process (`lifeline`).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.service import processors
from mta.service.configured import Configured
from mta.service.inheritance import VARIABLE, Inheritance
from mta.service.process import STOP_TIMEOUT, IConfigurable
from mta.service.signals import FOR_ALL, held_back
from mta.settings import Settings

MIN_PAUSE = 2.0  # seconds until a worker is started again; doubles with each that dies young
MAX_PAUSE = 60.0  # seconds; a worker that lived longer did not die young
KILL_DELAY = 2 * STOP_TIMEOUT  # seconds: a worker that takes longer to end hangs

# The first process alone hears Ctrl-C, from the very beginning.
_TWISTD = (
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    " from twisted.scripts.twistd import run; run()",
)
# systemd talks to the first process alone.
_NOT_FOR_WORKERS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS")


@implementer(IConfigurable)
class Workers(Service):
    """The workers of this process, which with itself are `count` processes."""

    log = Logger()

    def __init__(self, reactor: Any, count: int) -> None:
        self._reactor = reactor
        self._first, *self._others = processors.cpu_sets(count, processors.available())
        self._command: Sequence[str] = ()
        self._listeners: Sequence[int] = ()
        self._settings: Settings | None = None
        self._running: set[_Worker] = set()
        self._is_stopping = False

    def startService(self) -> None:
        """Keep this process to its processor; the workers come with `start_all`."""
        super().startService()
        processors.pin(0, self._first)

    def start_all(self, arguments: Sequence[str], ports: Sequence[Any]) -> None:
        """Start the workers, and pass on the signals that are for all.

        `arguments` are those of twistd, `ports` what they listen on as well.
        """
        self._command = [*_TWISTD, *arguments]
        self._listeners = [port.fileno() for port in ports]
        for cpus in self._others:
            self._start(cpus, MIN_PAUSE)
        for number in FOR_ALL if self._others else ():
            ours = signal.getsignal(number)
            if callable(ours):
                signal.signal(number, partial(self._pass_on, ours))

    def use(self, configured: Configured) -> None:
        """See `IConfigurable.use`: workers that are started from now on inherit it."""
        self._settings = configured.settings

    def stopService(self) -> Deferred[None]:
        """Twisted calls this when the process is to end, with its workers."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._is_stopping = True
        for worker in self._running:
            worker.signal(signal.SIGTERM)
        killing = self._reactor.callLater(KILL_DELAY, self._kill)
        await DeferredList([worker.ended for worker in self._running])
        if killing.active():
            killing.cancel()

    def _start(self, cpus: Collection[int], pause: float) -> None:
        """Start a worker; when it ends, start another after `pause`."""
        if self._is_stopping:
            return
        assert self._settings is not None
        environment = {
            name: value for name, value in os.environ.items() if name not in _NOT_FOR_WORKERS
        }
        environment[VARIABLE] = Inheritance.of(self._settings, self._listeners).encoded()
        worker = _Worker()
        worker.ended.addCallback(self._ended, worker, cpus, pause, self._reactor.seconds())
        try:
            with held_back():
                self._reactor.spawnProcess(
                    worker,
                    self._command[0],
                    self._command,
                    environment,
                    childFDs={0: "w", 1: 1, 2: 2} | {number: number for number in self._listeners},
                )
        except OSError as error:
            self.log.error(
                "a worker can't be started, and is tried again in {pause:.0f} s: {error}",
                pause=pause,
                error=str(error),
            )
            self._start_later(cpus, pause)
            return
        self._running.add(worker)
        processors.pin(worker.process, cpus)

    def _ended(
        self, reason: str, worker: _Worker, cpus: Collection[int], pause: float, started: float
    ) -> None:
        self._running.discard(worker)
        if self._is_stopping:
            return
        if self._reactor.seconds() - started > MAX_PAUSE:
            pause = MIN_PAUSE
        self.log.error(
            "a worker ended, and is started again in {pause:.0f} s: {reason}",
            pause=pause,
            reason=reason,
        )
        self._start_later(cpus, pause)

    def _start_later(self, cpus: Collection[int], pause: float) -> None:
        self._reactor.callLater(pause, self._start, cpus, min(2 * pause, MAX_PAUSE))

    def _pass_on(self, ours: Any, number: int, frame: object) -> None:
        ours(number, frame)
        for worker in list(self._running):
            worker.signal(number)

    def _kill(self) -> None:
        for worker in self._running:
            worker.signal(signal.SIGKILL)


class _Worker(ProcessProtocol):
    """One worker process; `ended` fires with the reason of its end."""

    def __init__(self) -> None:
        self.ended: Deferred[str] = Deferred()
        self.process = 0  # its id

    def connectionMade(self) -> None:
        """Twisted calls this when it runs."""
        assert self.transport is not None
        self.process = self.transport.pid

    def signal(self, number: int) -> None:
        if self.transport is not None:
            try:
                self.transport.signalProcess(number)  # Twisted knows the names of a few alone
            except ProcessExitedAlready:
                return  # Twisted calls `processEnded` next

    def processEnded(self, reason: Failure) -> None:
        """Twisted calls this when it is gone."""
        self.ended.callback(reason.getErrorMessage())


def twistd_arguments(options: Mapping[str, Any], configuration: str) -> list[str]:
    """The arguments of a worker's twistd, from those of ours."""
    log = options.get("logfile") or ("" if options.get("nodaemon", True) else "twistd.log")
    return [
        "--nodaemon",
        "--pidfile=",
        *([f"--logfile={log}"] if log else []),
        *(["--syslog", f"--prefix={options['prefix']}"] if options.get("syslog") else []),
        "mta",
        f"--config={configuration}",
    ]
