"""The threads of the process, all of them started at the beginning."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import threading
from contextlib import suppress

from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

MAX_THREADS = 20  # as many as wait for disks at a time
NICENESS = 10  # a tenth of the processor for each beside the reactor: log-ins go on under load
STACK = 1024 * 1024  # octets; the system's default takes eight times as much of the address space

MMAP_THRESHOLD = 4 * 1024 * 1024  # octets: more than any piece of mail in memory, less than a hash

# Of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_log = Logger()


class LowPriorityPool(ThreadPool):
    """Threads that compute when the reactor leaves them the processor.

    Passwords are hashed there: on a processor that both use, each wait of the reactor would last
    as long as the system lets a thread run.
    """

    class threadFactory(threading.Thread):  # the name that Twisted looks for
        """A thread of low priority, where one can have its own."""

        def run(self) -> None:
            """Take the low priority, and work."""
            if sys.platform == "linux":
                with suppress(OSError):  # of a sandbox that forbids it
                    os.nice(NICENESS)  # there this is of the thread alone
            super().run()


def take_little_memory() -> None:
    """Let threads take few addresses from now on, and hashes no memory.

    Where addresses are limited, threads share one heap: GNU's malloc sets 64 MiB aside for each.
    What is larger than `MMAP_THRESHOLD` gets pages of its own, which go back when it is freed.
    Left to itself, malloc would take the 16 MiB of a password's hash from its heaps after the first
    one; what a connection allocates beside them keeps these from shrinking: a MiB for each log-in.
    """
    threading.stack_size(STACK)
    options = {_M_MMAP_THRESHOLD: MMAP_THRESHOLD, _M_TRIM_THRESHOLD: 2 * MMAP_THRESHOLD}
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        options[_M_ARENA_MAX] = 1
    with suppress(AttributeError, OSError):  # another C library
        for option, value in options.items():
            ctypes.CDLL(None).mallopt(option, value)


def start_all(pool: ThreadPool, count: int = MAX_THREADS) -> int:
    """Start the threads of a running pool; returns their number.

    Twisted would start each when there is work for it, and forget the work where it can't.
    """
    started = pool.workers
    while started < count:
        try:
            pool.adjustPoolsize(started + 1, started + 1)
        except (RuntimeError, MemoryError):
            _log.warn("only {count} threads could be started: work waits for them", count=started)
            pool.threads[:] = [thread for thread in pool.threads if thread.is_alive()]
            pool.adjustPoolsize(started, max(started, 1))
            break
        started += 1
    return started
