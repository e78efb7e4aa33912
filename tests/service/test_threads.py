"""The threads of the process where the system allows few."""

from __future__ import annotations

import os
import queue
import resource
import subprocess
import sys
import threading

from twisted.logger import capturedLogs
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from mta.service.open_files import affordable, left
from mta.service.threads import NICENESS, LowPriorityPool, start_all
from mta.testing.threads import DEADLINE
from tests.processes import ROOT


class ThreadTests(SynchronousTestCase):
    """All are there from the start, or never wanted."""

    def setUp(self) -> None:
        self.pool = ThreadPool(0, 10)
        self.pool.start()
        self.addCleanup(self.pool.stop)

    def test_all(self) -> None:
        """As many as are wanted are started."""
        self.assertEqual(start_all(self.pool, 5), 5)
        self.assertEqual((self.pool.workers, self.pool.max), (5, 5))

    def test_few(self) -> None:
        """Where no more can be started, none is wanted later: all work is done by these."""
        real, left = threading.Thread.start, [3]

        def start(thread: threading.Thread) -> None:
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
            real(thread)

        self.patch(threading.Thread, "start", start)
        with capturedLogs() as events:
            self.assertEqual(start_all(self.pool, 20), 3)
        self.assertEqual(len(events), 1)
        done = threading.Semaphore(0)
        for _ in range(50):
            self.pool.callInThread(done.release)
        for _ in range(50):
            self.assertTrue(done.acquire(timeout=DEADLINE))


class LowPriorityTests(SynchronousTestCase):
    """Threads that leave the processor to others."""

    def test_niceness(self) -> None:
        """They have it, and the other threads stay as they were."""
        pool = LowPriorityPool(0, 1)
        pool.start()
        self.addCleanup(pool.stop)
        seen: queue.Queue[int] = queue.Queue()
        pool.callInThread(lambda: seen.put(os.nice(0)))
        self.assertEqual(seen.get(timeout=DEADLINE), min(19, os.nice(0) + NICENESS))


# Log-ins, one after the other and in threads, of which each leaves a connection that stays.
_LOG_INS = """
import os, ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from mta.service.threads import take_little_memory
from mta.users.roster import PasswordHash

def memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

take_little_memory()
before, kept = memory(), []
with ThreadPoolExecutor(10) as threads:
    for _ in range(10):
        list(threads.map(PasswordHash.of, ["secret"] * 2))
        kept += [bytearray(500) for _ in range(100)]
print((memory() - before) // 2**20)
"""


class MemoryTests(SynchronousTestCase):
    """What the process keeps."""

    def test_after_log_ins(self) -> None:
        """The 16 MiB of each hash go back to the system."""
        command = [sys.executable, "-c", _LOG_INS]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        self.assertLess(int(done.stdout), 12)


class OpenFileTests(SynchronousTestCase):
    """Connections take open files."""

    def test_affordable(self) -> None:
        """No more than there are files for, with what the spool needs kept."""
        for limit, connections in ((64, 8), (256, 104), (65536, 1000), (10, 1), (-1, 1000)):
            self.patch(resource, "getrlimit", lambda which, limit=limit: (limit, limit))
            self.assertEqual(affordable(1000), connections)

    def test_left(self) -> None:
        """Those that are served have their files first."""
        for limit, waiting in ((1024, 0), (4096, 2048), (20000, 10000), (-1, 10000)):
            self.patch(resource, "getrlimit", lambda which, limit=limit: (limit, limit))
            self.assertEqual(left(1000), waiting)
