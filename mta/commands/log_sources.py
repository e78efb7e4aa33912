"""The lines of the log, from files or the journal."""

from __future__ import annotations

import gzip
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from mta.commands import journal
from mta.settings import Settings

PAUSE = 0.25  # seconds between two looks at a file that is followed: as quick as an eye


def configured(settings: Settings, since: float = 0.0) -> Sequence[str]:
    """The paths of ``log.file`` and of its predecessors, the oldest first.

    Those that were last written to before `since` are left out; none where there is no such file.
    """
    log = settings.log.file
    if not log:
        return []
    dated = []
    for path in Path(log).parent.glob(f"{Path(log).name}*"):
        with suppress(FileNotFoundError):  # rotated just now
            if path.is_file() and (changed := path.stat().st_mtime) >= since:
                dated.append((changed, str(path)))
    return [path for _, path in sorted(dated)] or [log]


def lines_in(path: str) -> Iterator[str]:
    """The lines of a log; ``-`` is standard input.  Raises OSError."""
    try:
        with _opened(path) as stream:
            yield from stream
    except (EOFError, gzip.BadGzipFile, zlib.error):
        print(f"mta: {path} is damaged: it can't be read to its end", file=sys.stderr)


def following(path: str, wait: Callable[[], object] = lambda: time.sleep(PAUSE)) -> Iterator[str]:
    """All lines of a log, and those that come, for ever.

    Where it is rotated, the new file goes on where the old one ends.  Empty text says that none has
    come.  Raises OSError.
    """
    while True:
        with Path(path).open(encoding="utf-8", errors="replace") as stream:
            yield from _until_rotated(path, stream, wait)


def _until_rotated(path: str, stream: TextIO, wait: Callable[[], object]) -> Iterator[str]:
    begun = ""
    while True:
        is_last = _is_replaced(path, stream)  # asked before the last look: nothing is missed
        for line in iter(stream.readline, ""):
            begun += line
            if begun.endswith("\n"):
                yield begun
                begun = ""
        if is_last:
            return
        if os.fstat(stream.fileno()).st_size < stream.tell():
            stream.seek(0)  # it was emptied
        yield ""
        wait()


def _is_replaced(path: str, stream: TextIO) -> bool:
    with suppress(FileNotFoundError):  # moved away, and not made anew yet
        return not os.path.samestat(Path(path).stat(), os.fstat(stream.fileno()))
    return False


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    if path == "-":
        yield sys.stdin
    elif path.endswith(".gz"):
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as stream:
            yield stream
    else:
        with Path(path).open(encoding="utf-8", errors="replace") as stream:
            yield stream


def in_journal(since: float, *, follow: bool = False) -> Iterator[str]:
    """The lines in the journal; none where there is no journal."""
    with suppress(FileNotFoundError):
        yield from journal.lines(since, follow=follow)
