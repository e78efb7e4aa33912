"""Worker processes: more of the same service, on the same listeners and the same spool.

The first process opens the listeners and starts the workers, which inherit them: whoever is idle
takes the next connection.  The leases of the spool keep their mail apart.  A worker that dies is
started again, and none outlives the first process, which has the other end of its standard input.

Where the processes are as many as the processors, each keeps to one.  Its threads take turns
anyway, and whoever's turn it is finds there what the last one left in the caches.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready, ReactorNotRunning
from twisted.internet.interfaces import IProtocolFactory, IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.settings import Listener, ListenerTLS, Service, Settings

VARIABLE = "MTA_WORKER"  # in a worker's environment: what it inherits
MIN_PAUSE = 2.0  # seconds until a worker is started again; doubles with each that dies young
MAX_PAUSE = 60.0  # seconds; who lived longer did not die young

# Ctrl-C is for the first process to hear, from the very beginning.
_TWISTD = (
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    " from twisted.scripts.twistd import run; run()",
)
# systemd talks to the first process alone.
_NOT_FOR_WORKERS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS")
_PASSED_ON = (signal.SIGHUP, signal.SIGUSR1)  # read the configuration, open the log anew


# --- in the first process


class Workers:
    """The workers of this process, which with itself are `count` processes."""

    log = Logger()

    def __init__(self, reactor: Any, count: int) -> None:
        self._reactor = reactor
        self._first, *self._others = places(count, _processors())
        self._command: Sequence[str] = ()
        self._listeners: Sequence[int] = ()
        self._settings: Settings | None = None
        self._running: set[_Worker] = set()
        self._stopping = False

    def take_place(self) -> None:
        """Let this process run where it is to run; its threads follow if they begin later."""
        _put(0, self._first)

    def start(self, arguments: Sequence[str], ports: Sequence[Any], settings: Settings) -> None:
        """Start them; from now on they hear the signals that we hear.

        `arguments` are those of twistd, `ports` what they are to listen on as well.  What of
        `settings` takes a restart they have from us, whatever the file says when one is started.
        """
        self._command = [*_TWISTD, *arguments]
        self._settings = settings
        self._listeners = [port.fileno() for port in ports]
        for place in self._others:
            self._start_one(place, MIN_PAUSE)
        for number in _PASSED_ON if self._others else ():
            ours = signal.getsignal(number)
            if callable(ours):
                signal.signal(number, partial(self._pass_on, ours))

    def use(self, settings: Settings) -> None:
        """Leave these to the workers that are started from now on."""
        self._settings = settings

    async def stop(self, longest: float) -> None:
        """Let them end as we do; those that take longer than so many seconds are killed."""
        self._stopping = True
        for worker in self._running:
            worker.signal("TERM")
        killing = self._reactor.callLater(longest, self._kill)
        await DeferredList([worker.ended for worker in self._running])
        if killing.active():
            killing.cancel()

    def _start_one(self, place: Collection[int], pause: float) -> None:
        if self._stopping:
            return
        assert self._settings is not None
        environment = {
            name: value for name, value in os.environ.items() if name not in _NOT_FOR_WORKERS
        }
        environment[VARIABLE] = Inheritance.of(self._settings, self._listeners).encoded()
        worker = _Worker()
        worker.ended.addCallback(self._ended, worker, place, pause, self._reactor.seconds())
        self._running.add(worker)
        self._reactor.spawnProcess(
            worker,
            self._command[0],
            self._command,
            environment,
            childFDs={0: "w", 1: 1, 2: 2} | {number: number for number in self._listeners},
        )
        _put(worker.process, place)

    def _ended(
        self,
        reason: str,
        worker: _Worker,
        place: Collection[int],
        pause: float,
        begun: float,
    ) -> None:
        self._running.discard(worker)
        if self._stopping:
            return
        if self._reactor.seconds() - begun > MAX_PAUSE:
            pause = MIN_PAUSE
        self.log.error(
            "a worker ended, and is started again in {pause:.0f} s: {reason}",
            pause=pause,
            reason=reason,
        )
        self._reactor.callLater(pause, self._start_one, place, min(2 * pause, MAX_PAUSE))

    def _pass_on(self, ours: Any, number: int, frame: object) -> None:
        ours(number, frame)
        for worker in list(self._running):
            worker.signal(signal.Signals(number).name.removeprefix("SIG"))

    def _kill(self) -> None:
        for worker in self._running:
            worker.signal("KILL")


class _Worker(ProcessProtocol):
    """One worker; `ended` fires with the reason of its end."""

    def __init__(self) -> None:
        self.ended: Deferred[str] = Deferred()
        self.process = 0  # its id

    def connectionMade(self) -> None:
        """Twisted calls this when it runs."""
        assert self.transport is not None
        self.process = self.transport.pid

    def signal(self, name: str) -> None:
        if self.transport is not None:
            try:
                self.transport.signalProcess(name)
            except ProcessExitedAlready:
                return  # which we hear of next

    def processEnded(self, reason: Failure) -> None:
        """Twisted calls this when it is gone."""
        self.ended.callback(reason.getErrorMessage())


def places(count: int, processors: Sequence[int]) -> Sequence[Collection[int]]:
    """The processors on which each of so many processes is to run."""
    if count < 2 or count < len(processors) or not processors:
        return [processors] * count
    return [(processors[number % len(processors)],) for number in range(count)]


def _processors() -> Sequence[int]:
    """Those that this process may run on; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ()


def _put(process: int, place: Collection[int]) -> None:
    if place:
        with suppress(OSError):  # it is gone, or some sandbox forbids it: it runs as it is, too
            os.sched_setaffinity(process, place)


def twistd_arguments(options: Mapping[str, Any], configuration: str) -> list[str]:
    """How a worker of a twistd with these options is started."""
    log = options.get("logfile") or ("" if options.get("nodaemon", True) else "twistd.log")
    return [
        "--nodaemon",
        "--pidfile=",
        *([f"--logfile={log}"] if log else []),
        *(["--syslog", f"--prefix={options['prefix']}"] if options.get("syslog") else []),
        "mta",
        f"--config={configuration}",
    ]


# --- in a worker


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a worker has from the first process: its listeners, and their descriptors.

    The file may have changed since, without a reload: a worker that went by that alone would
    serve one port as another, or work with another spool.
    """

    descriptors: Sequence[int]
    listen: Sequence[Listener]
    spool: str
    workers: int

    @classmethod
    def of(cls, settings: Settings, descriptors: Sequence[int]) -> Inheritance:
        """What is left to workers of a process with these settings."""
        return cls(descriptors, settings.listen, settings.spool, settings.queue.workers)

    def encoded(self) -> str:
        """As text for the environment."""
        listen = [
            asdict(each) | {"service": each.service.value, "tls": each.tls.value}
            for each in self.listen
        ]
        return json.dumps([list(self.descriptors), listen, self.spool, self.workers])

    @classmethod
    def decoded(cls, text: str) -> Inheritance:
        """What `encoded` wrote."""
        descriptors, listen, spool, count = json.loads(text)
        listeners = [
            Listener(
                **each | {"service": Service(each["service"]), "tls": ListenerTLS(each["tls"])}
            )
            for each in listen
        ]
        return cls(descriptors, listeners, spool, count)

    def in_force(self, settings: Settings) -> Settings:
        """The settings of the file, but for those that take a restart of the first process."""
        return replace(
            settings,
            spool=self.spool,
            listen=tuple(self.listen),
            queue=replace(settings.queue, workers=self.workers),
        )


def _listener(fields: Mapping[str, Any]) -> Listener:
    service, tls = Service(fields["service"]), ListenerTLS(fields["tls"])
    return Listener(**dict(fields) | {"service": service, "tls": tls})


def inherited(environment: MutableMapping[str, str] = os.environ) -> Inheritance | None:
    """What we inherit, if we are a worker."""
    value = environment.pop(VARIABLE, "")
    return Inheritance.decoded(value) if value else None


def adopt(reactor: Any, descriptor: int, factory: IProtocolFactory) -> Any:
    """Listen on an inherited socket; returns its port.  Raises OSError."""
    with socket.socket(fileno=descriptor) as inherited:
        return reactor.adoptStreamPort(descriptor, inherited.family, factory)


def live_no_longer_than_first(reactor: Any) -> None:
    """End when the first process does, in whatever way."""
    reactor.addReader(_Lifeline(reactor))


@implementer(IReadDescriptor)
class _Lifeline:
    """Standard input: nothing is ever written there, so what can be read is its end."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def fileno(self) -> int:
        """Twisted asks what to watch."""
        return 0

    def logPrefix(self) -> str:
        """Twisted asks whom a failure belongs to."""
        return "lifeline"

    def doRead(self) -> None:
        """Twisted found something to read."""
        self._end()

    def connectionLost(self, reason: Failure) -> None:
        """Twisted found that nobody holds the other end, or that the process ends."""
        self._end()

    def _end(self) -> None:
        self._reactor.removeReader(self)
        with suppress(ReactorNotRunning):
            self._reactor.stop()
