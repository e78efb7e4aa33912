"""The threads of the process: all are started at once, so that none is missing later."""

from __future__ import annotations

import resource
import threading
from contextlib import suppress

from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

COUNT = 20
STACK = 1024 * 1024  # octets; the system's default takes eight times as much of the address space

_M_ARENA_MAX = -8  # of malloc.h

_log = Logger()


def take_little_memory() -> None:
    """Let all threads that are started from now on take little of the address space.

    Where that is limited, they share one heap: GNU's malloc sets 64 MiB aside for each.
    """
    threading.stack_size(STACK)
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        import ctypes

        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def start_all(pool: ThreadPool, count: int = COUNT) -> int:
    """Start the threads of a running pool, as many as the system allows; returns how many.

    Where it is one that it wants and can't have, Twisted forgets the work that it was for.
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
