"""The processes of one service: who runs where."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from twisted.internet.error import ProcessTerminated
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mta.service import processors
from mta.service.inheritance import VARIABLE, Inheritance, inherited
from mta.service.processors import cpu_sets
from mta.service.workers import Workers
from mta.settings import Listener, ListenerTLS, Queue, Service, Settings


class PlacesTests(SynchronousTestCase):
    """Who runs on which processor."""

    def test_more_processors(self) -> None:
        """The system does better than we where it has a choice."""
        self.assertEqual([[0, 1, 2]] * 2, cpu_sets(2, [0, 1, 2]))
        self.assertEqual([[5]], cpu_sets(1, [5]))

    def test_as_many(self) -> None:
        """Each has its own."""
        self.assertEqual([(3,), (5,)], cpu_sets(2, [3, 5]))

    def test_more_processes(self) -> None:
        """They are spread evenly."""
        self.assertEqual([(3,), (5,), (3,)], cpu_sets(3, [3, 5]))

    def test_not_told(self) -> None:
        """Some systems don't tell."""
        self.assertEqual([()] * 2, cpu_sets(2, ()))


@implementer(IReactorTime)
class NoProcesses(Clock):
    """A reactor that may start no process for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: OSError | None = None
        self.started = 0
        self.signals: list[int] = []

    def spawnProcess(self, protocol: Any, *_: Any, **__: Any) -> None:
        """Start one, or raise."""
        if self.failing is not None:
            raise self.failing
        self.started += 1
        self.held_back = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        protocol.makeConnection(SimpleNamespace(pid=os.getpid(), signalProcess=self.signalled))
        self.protocol = protocol

    def signalled(self, number: int) -> None:
        """Note a signal; one that ends a process ends the last one at once."""
        self.signals.append(number)
        if number in (signal.SIGTERM, signal.SIGKILL):
            self.protocol.processEnded(Failure(ProcessTerminated()))


class StartTests(SynchronousTestCase):
    """Workers that can't be started."""

    def setUp(self) -> None:
        self.reactor = NoProcesses()
        self.patch(processors, "available", lambda: ())
        self.workers = Workers(self.reactor, 2)
        self.workers.use(SimpleNamespace(settings=Settings("m.example")))  # type: ignore[arg-type]
        for number in (signal.SIGHUP, signal.SIGUSR1):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def test_tried_again(self) -> None:
        """Whatever is short, the others go on, and a worker comes once there is enough."""
        for error in (errno.EAGAIN, errno.EMFILE, errno.ENOMEM, errno.EACCES):
            self.reactor.failing = OSError(error, os.strerror(error))
            before = self.reactor.started
            with capturedLogs() as events:
                self.workers.start_all([], [])
                self.reactor.pump([1.0] * 300)
                self.reactor.failing = None
                self.reactor.pump([1.0] * 61)
            self.assertEqual(self.reactor.started, before + 1)
            self.assertIn(len(events), range(5, 12), "few lines in five minutes")
            self.assertTrue(all(os.strerror(error) in event["error"] for event in events))

    def test_signals_at_the_start(self) -> None:
        """None that is passed on reaches a worker before it can hear, and ends it so."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.workers.start_all([], [])
        self.assertEqual(self.reactor.held_back - before, {signal.SIGHUP, signal.SIGUSR1})
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, ()), before)

    def test_one_that_died(self) -> None:
        """It is started again, though that fails at first."""
        self.workers.start_all([], [])
        self.reactor.failing = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        with capturedLogs():
            self.reactor.signalled(signal.SIGKILL)
            self.reactor.pump([1.0] * 10)
            self.reactor.failing = None
            self.reactor.pump([1.0] * 61)
        self.assertEqual(self.reactor.started, 2)

    def test_passed_on(self) -> None:
        """Each signal that is for all comes to the workers, as a number, and to us."""
        ours: list[int] = []
        for number in (signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda number, _: ours.append(number))
        self.workers.start_all([], [])
        for number in (signal.SIGHUP, signal.SIGUSR1):
            signal.raise_signal(number)
        self.assertEqual(ours, [signal.SIGHUP, signal.SIGUSR1])
        self.assertEqual(self.reactor.signals, ours)

    def test_stop(self) -> None:
        """The end waits for none that never was."""
        self.reactor.failing = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        with capturedLogs():
            self.workers.start_all([], [])
        self.successResultOf(self.workers.stopService())
        self.reactor.failing = None
        self.reactor.pump([1.0] * 61)
        self.assertEqual(self.reactor.started, 0)


class InheritanceTests(SynchronousTestCase):
    """What a worker has from the first process."""

    def test_through_the_environment(self) -> None:
        """All of each listener, the spool, and how many processes there are."""
        listeners = (
            Listener("tcp:25"),
            Listener("tcp:1", Service.SUBMISSION, ListenerTLS.OFF, allow_cleartext_auth=True),
        )
        ours = Settings("m.example", spool="/s", listen=listeners, queue=Queue(workers=3))
        environment = {VARIABLE: Inheritance.of(ours, [7, 8]).encoded()}
        found = inherited(environment)
        assert found is not None
        self.assertEqual(environment, {})
        self.assertEqual(found.descriptors, [7, 8])
        file = replace(ours, spool="/t", listen=listeners[:1], queue=Queue(workers=1))
        self.assertEqual(found.in_force(file), ours)

    def test_the_first(self) -> None:
        """The first process inherits nothing."""
        self.assertIsNone(inherited({}))
