"""The parts that a configuration makes, and those that outlive it."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from mta.metrics import NullMeter
from mta.service import threads
from mta.service.configured import configure
from mta.service.process import Process
from mta.settings import Listener, Settings
from mta.spool.place import SpoolPlace
from tests.processes import temporary_folder


class ReloadTests(SynchronousTestCase):
    """A process that reads its configuration again."""

    def test_turns(self) -> None:
        """Sessions of before and after share them, on whatever listener."""
        self.patch(threads, "take_little_memory", lambda: None)  # this process is none of a server
        reactor: Any = MemoryReactorClock()
        reactor.getThreadPool = ThreadPool
        settings = Settings(
            "mail.example.com",
            spool=str(temporary_folder(self)),
            listen=(Listener("tcp:25"), Listener("tcp:26")),
        )
        process = Process(SpoolPlace.of(settings), reactor, NullMeter())
        configured = [configure(settings, process, {}) for _ in range(2)]
        turns = {id(each.turns) for both in configured for each in both.receivers}
        self.assertEqual(len(turns), 1)
