"""Processors: one for each process, where the processes are as many.

Only one thread of a process runs Python at a time, and on one processor each finds in the caches
there what the last one left.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress


def available() -> Sequence[int]:
    """The processors that this process may use; none: they are not known."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ()


def cpu_sets(count: int, processors: Sequence[int]) -> Sequence[Collection[int]]:
    """The processors for each of so many processes."""
    if count < 2 or count < len(processors) or not processors:
        return [processors] * count
    return [(processors[number % len(processors)],) for number in range(count)]


def pin(process: int, processors: Collection[int]) -> None:
    """Let a process use these only; 0 is this one."""
    if processors:
        # It is gone, or a sandbox forbids it: it runs without that, too.
        with suppress(OSError):
            os.sched_setaffinity(process, processors)
