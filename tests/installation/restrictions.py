"""What a unit takes from a process: each line of it tried, from inside.

``restrictions.py HOSTNAMES``, run by systemd, prints a JSON object: whether each line holds.
`HOSTNAMES` is the namespace of the host name that the system has.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import socket
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

CANARY = "/tmp/canary"  # which the system has
# Where a process of the unit may write, besides the file systems of the kernel.
WRITABLE = {
    *("/var/spool/mta", "/var/mail", "/var/lib/mta", "/var/log/mta", "/run/mta"),
    *("/tmp", "/var/tmp"),
}
_OF_THE_KERNEL = ("/proc", "/sys", "/dev")
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER, _CLONE_INVALID = 0x10000000, 0x1
_PERSONALITY_OF_32 = 8
_SCHED_FIFO = 1
_CALLS = {"perf_event_open": 298, "clock_settime": 227, "syslog": 103}  # on x86-64
_GETPID_OF_32 = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20; int 0x80; ret


def _refused(result: int) -> bool:
    """Tell whether a filter refused the call, which else says that its arguments are wrong."""
    return result < 0 and ctypes.get_errno() == errno.EPERM


def _call(name: str, *arguments: int) -> bool:
    return _refused(_LIBC.syscall(_CALLS[name], *arguments))


def _status(name: str, value: str) -> bool:
    return f"{name}:\t{value}\n" in Path("/proc/self/status").read_text()


def _is_read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _mounts() -> dict[str, str]:
    """The options of each mount, by its folder."""
    lines = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return {line[4]: line[5] for line in lines}


def _may_write() -> set[str]:
    """The folders below which the file system is not read-only."""
    found = {path for path, options in _mounts().items() if options.split(",")[0] == "rw"}
    return {path for path in found if not path.startswith(_OF_THE_KERNEL)}


def _is_hidden(path: str) -> bool:
    return stat.S_IMODE(os.stat(path).st_mode) == 0  # noqa: PTH116


def _has_mode(path: str, mode: int) -> bool:
    return stat.S_IMODE(os.stat(path).st_mode) == mode  # noqa: PTH116


def _no_packets() -> bool:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    except OSError as error:
        return error.errno == errno.EAFNOSUPPORT
    return False


def _no_set_user_id() -> bool:
    with tempfile.NamedTemporaryFile() as file:
        try:
            os.chmod(file.name, 0o4755)  # noqa: PTH101
        except PermissionError:
            return True
        return False


def _no_calls_of_32() -> bool:
    """Tell whether a process that makes one is ended for it, or has an error."""
    pid = os.fork()
    if pid == 0:
        memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | 4)
        memory.write(_GETPID_OF_32)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        os._exit(ctypes.CFUNCTYPE(ctypes.c_int)(address)() == os.getpid())
    return os.waitpid(pid, 0)[1] != 1 << 8


# By the key of the unit.  What the user of the server may not do anyway is tried by calls that fail
# for another reason where no filter is before them.
LINES: dict[str, Callable[[], bool]] = {
    "UMask": lambda: os.umask(0) == 0o027,
    "StateDirectoryMode": lambda: _has_mode("/var/lib/mta", 0o750),
    "LogsDirectoryMode": lambda: _has_mode("/var/log/mta", 0o750),
    "CapabilityBoundingSet": lambda: _status("CapBnd", "0" * 16),
    "NoNewPrivileges": lambda: _status("NoNewPrivs", "1"),
    "LimitCORE": lambda: resource.getrlimit(resource.RLIMIT_CORE) == (0, 0),
    "ProtectSystem": lambda: all(map(_is_read_only, ("/", "/etc", "/usr", "/var", "/opt"))),
    "ReadOnlyPaths": lambda: _is_read_only("/run"),
    "ReadWritePaths": lambda: _may_write() == WRITABLE,
    "ProtectHome": lambda: all(map(_is_hidden, ("/root", "/home"))),
    "PrivateTmp": lambda: not os.path.exists(CANARY),  # noqa: PTH110
    "PrivateDevices": lambda: not {"mem", "kmsg"} & {*os.listdir("/dev")},  # noqa: PTH208
    "ProtectClock": lambda: _call("clock_settime", 0, 0),
    "ProtectControlGroups": lambda: _is_read_only("/sys/fs/cgroup"),
    "ProtectHostname": lambda: os.readlink("/proc/self/ns/uts") != sys.argv[1],  # noqa: PTH115
    "ProtectKernelLogs": lambda: "/proc/kmsg" in _mounts() and _call("syslog", 99, 0, 0),
    "ProtectKernelModules": lambda: _is_hidden("/usr/lib/modules"),
    "ProtectKernelTunables": lambda: all(map(_is_read_only, ("/proc/sys", "/sys"))),
    "ProtectProc": lambda: not os.path.exists("/proc/1"),  # noqa: PTH110
    "LockPersonality": lambda: _refused(_LIBC.personality(_PERSONALITY_OF_32)),
    "RestrictAddressFamilies": _no_packets,
    "RestrictNamespaces": lambda: _refused(_LIBC.unshare(_CLONE_NEWUSER | _CLONE_INVALID)),
    "RestrictRealtime": lambda: _refused(
        _LIBC.sched_setscheduler(0, _SCHED_FIFO, ctypes.byref(ctypes.c_int(0)))
    ),
    "RestrictSUIDSGID": _no_set_user_id,
    "SystemCallArchitectures": _no_calls_of_32,
    "SystemCallFilter": lambda: _call("perf_event_open", 0, 0, -1, -1, 0),
    "SystemCallErrorNumber": lambda: _call("perf_event_open", 0, 0, -1, -1, 0),
}

if __name__ == "__main__":
    print(json.dumps({name: holds() for name, holds in LINES.items()}))
