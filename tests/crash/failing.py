"""Lets calls of a running program fail, and sets its clock: the test's side of failing.c."""

from __future__ import annotations

import errno
import mmap
import sqlite3
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import need_program, source_environment

CALLS = (
    *("", "open", "write", "fsync", "syncfs", "rename", "link", "unlink"),
    *("mkdir", "ftruncate", "read", "close", "statement"),
    *("stat", "list", "own", "lock", "mmap", "allocate", "mkfifo", "utime", "readlink", "symlink"),
    *(
        "statvfs",
        "short write",
        "socket",
        "connect",
        "accept",
        "epoll",
        "spawn",
        "thread",
        "random",
    ),
)
ALWAYS = -1

_WISH = struct.Struct("6iq512s")
_SECONDS = struct.Struct("q")
_SOURCE = Path(__file__).with_name("failing.c")


class Wish:
    """The file that says which calls are to fail."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._wish = mmap.mmap(file.fileno(), _WISH.size)

    def close(self) -> None:
        """Let go of the file."""
        self._wish.close()

    @contextmanager
    def failing(
        self, call: str, path: str, error: str, *, times: int = 1, skip: int = 0
    ) -> Iterator[None]:
        """Let a call on paths with this part fail, once or `ALWAYS`.

        A ``statement`` of SQLite has as its path that of the database, a space, and its text.
        """
        number = getattr(sqlite3 if error.startswith("SQLITE_") else errno, error)
        wish = (CALLS.index(call), number, skip, times, 0, 0)
        self._set(*wish, path=path)
        try:
            yield
        finally:
            self._set(0, 0, 0, 0, self.failed, 0)

    @property
    def failed(self) -> int:
        """How many calls failed since `failing` was entered."""
        return int(_WISH.unpack(self._wish)[4])

    def set_clock(self, seconds: float) -> None:
        """Let the clock be wrong by so much."""
        _SECONDS.pack_into(self._wish, 24, int(seconds))

    def _set(self, call: int, *numbers: int, path: str = "") -> None:
        """Change the wish; its call comes last, for the program looks at that first."""
        (seconds,) = _SECONDS.unpack_from(self._wish, 24)
        struct.pack_into("i", self._wish, 0, 0)
        _WISH.pack_into(self._wish, 0, 0, *numbers, seconds, path.encode())
        struct.pack_into("i", self._wish, 0, call)


class Calls(Wish):
    """The calls of programs that are started with `environment`."""

    def __init__(self, case: SynchronousTestCase, folder: Path) -> None:
        compiler = need_program(case, "gcc")
        library = folder / "failing.so"
        done = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", library, _SOURCE, "-ldl"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            case.skipTest(f"gcc can't make the library: {done.stderr[:200]}")
        path = folder / "failing"
        path.write_bytes(bytes(_WISH.size))
        path.chmod(0o666)  # the program may be another user's
        self.environment = source_environment() | {
            "LD_PRELOAD": str(library),
            "MTA_FAILING": str(path),
        }
        super().__init__(path)
        case.addCleanup(self.close)
