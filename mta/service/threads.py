"""The threads of the process, all of them started at the beginning."""

from __future__ import annotations

import resource
import threading
from contextlib import suppress

from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

MAX_THREADS = 20  # as many as wait for disks and hashes at a time
STACK = 1024 * 1024  # octets; the system's default takes eight times as much of the address space

_M_ARENA_MAX = -8  # of malloc.h

_log = Logger()


def take_little_memory() -> None:
    """Let threads that are started from now on take few addresses.

    Where that is limited, they share one heap: GNU's malloc sets 64 MiB aside for each.
    """
    threading.stack_size(STACK)
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        import ctypes

        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


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
