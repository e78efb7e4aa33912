"""How full a Maildir is: Maildir++ quotas, kept in its ``maildirsize`` file.  All of it blocks.

The first line of the file is the quota, such as ``1000000S``; each other line adds so many octets
and messages.  All programs that deliver append to it, and whoever takes messages away appends
what is less; where it can't be trusted, the messages themselves are counted and it is written anew.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mta.files import atomic_write

FILE = "maildirsize"
MOST_OCTETS = 5120  # of the file, after which it is written anew
TRUSTED_FOR = 900.0  # seconds that a file is believed which says that there is no room

_SIZE_IN_NAME = re.compile(r",S=(\d+)")


def has_room(maildir: Path, quota: int, wanted: int) -> bool:
    """Whether `wanted` octets more fit into `quota` octets.  Raises OSError."""
    known = _read(maildir, quota)
    if known is not None and known + wanted <= quota:
        return True
    if known is not None and _is_fresh(maildir):
        return False
    return _count_anew(maildir, quota) + wanted <= quota


def add(maildir: Path, octets: int) -> None:
    """Note that a message has come.  Raises OSError."""
    with suppress(FileNotFoundError):  # the next one to look counts it
        descriptor = os.open(maildir / FILE, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"%d 1\n" % octets)
        finally:
            os.close(descriptor)


def _read(maildir: Path, quota: int) -> int | None:
    """The octets that the file says are there; None where there is no file to go by."""
    try:
        with (maildir / FILE).open("rb") as file:
            text = file.read(MOST_OCTETS + 1)
    except FileNotFoundError:
        return None
    first, *lines = text.split(b"\n")
    if len(text) > MOST_OCTETS or first != _definition(quota):
        return None
    try:
        return max(0, sum(int(line.split()[0]) for line in lines if line.strip()))
    except ValueError:
        return None


def _is_fresh(maildir: Path) -> bool:
    """Whether the file was counted a short while ago, and nothing was added since."""
    try:
        text = (maildir / FILE).read_bytes()
        age = time.time() - (maildir / FILE).stat().st_mtime
    except FileNotFoundError:
        return False
    return text.count(b"\n") <= 2 and 0 <= age < TRUSTED_FOR


def _count_anew(maildir: Path, quota: int) -> int:
    sizes = list(_sizes(maildir))
    octets = sum(sizes)
    text = b"%b\n%d %d\n" % (_definition(quota), octets, len(sizes))
    # In the Maildir itself, a name that begins with a dot is a folder.
    atomic_write(maildir / FILE, text, durable=False, draft_folder=maildir / "tmp")
    return octets


def _sizes(maildir: Path) -> Iterator[int]:
    """The octets of each message in the Maildir and in its folders, which begin with a dot."""
    with os.scandir(maildir) as entries:
        folders = [entry.path for entry in entries if entry.name.startswith(".")]
    for folder in (os.fspath(maildir), *folders):
        for name in ("new", "cur"):
            with suppress(FileNotFoundError, NotADirectoryError):
                yield from _sizes_in(f"{folder}/{name}")


def _sizes_in(folder: str) -> Iterator[int]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if found := _SIZE_IN_NAME.search(entry.name):
                yield int(found[1])
                continue
            with suppress(FileNotFoundError):  # a reader moved it
                yield entry.stat(follow_symlinks=False).st_size


def _definition(quota: int) -> bytes:
    return b"%dS" % quota
