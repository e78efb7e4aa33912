"""What a process and all its descendants cost, by /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds
_MACHINE = Path("/proc/stat")


def cpu_seconds(root: int) -> float:
    """CPU time of the tree so far: user and system, descendants that have ended included."""
    return sum(sum(map(int, _stat(pid)[11:15])) for pid in processes(root)) * _TICK


def own_cpu_seconds(pid: int) -> float:
    """CPU time of one process so far: user and system.  Raises ValueError where it is gone."""
    user, system = map(int, _stat(pid)[11:13])
    return (user + system) * _TICK


def busy_seconds() -> float:
    """Time for which the machine's cores were busy so far, whoever used them."""
    user, nice, system, _, _, *interrupts = map(int, _MACHINE.read_text().split()[1:9])
    return (user + nice + system + sum(interrupts)) * _TICK


def memory(root: int) -> int:
    """Octets that the tree has in memory now; pages that processes share are counted once."""
    return sum(_pss(pid) for pid in processes(root))


def status_size(pid: int, name: str) -> int:
    """A size in /proc/PID/status, in octets."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


class Growth:
    """By how much the processes of a tree have grown since; only those that are there now."""

    def __init__(self, root: int) -> None:
        self._before: dict[int, int] = {}
        for pid in processes(root):
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # begin the peak anew
                self._before[pid] = status_size(pid, "VmRSS")

    @property
    def octets(self) -> int:
        """The sum of their peaks, less what they had."""
        return sum(status_size(pid, "VmHWM") - before for pid, before in self._before.items())


def processes(root: int) -> Iterator[int]:
    """A process, and all that come from it."""
    started = _children()
    found = [root]
    while found:
        pid = found.pop()
        if _stat(pid):
            yield pid
            found += started.get(pid, ())


def children(pid: int) -> list[int]:
    """The processes that one has started, which are still there."""
    return sorted(_children().get(pid, ()))


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        if fields := _stat(pid):
            found.setdefault(int(fields[1]), []).append(pid)
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, state first; none where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
