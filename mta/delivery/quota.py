"""Maildir++ quotas, in the ``maildirsize`` file of a Maildir.  All of it blocks.

The first line of the file is the quota, such as ``1000000S``; each other line adds so many octets
and messages.  All programs that deliver append to it, and programs that take messages away append
negative numbers.  Where it can't be trusted, the messages are counted and it is written anew.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mta.files import atomic_write

FILE = "maildirsize"
_NO_TRAPS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MAX_OCTETS = 5120  # octets: of the file, after which it is written anew, as in Dovecot
TRUSTED_FOR = 900.0  # seconds: a file that says there is no room is believed for so long

_SIZE_IN_NAME = re.compile(r",S=(\d+)")


def has_room(maildir: Path, quota: int, wanted: int) -> bool:
    """Tell whether `wanted` octets more fit into `quota` octets.  Raises OSError."""
    known = _read(maildir, quota)
    if known is not None and known + wanted <= quota:
        return True
    if known is not None and _is_fresh(maildir):
        return False
    return _count_anew(maildir, quota) + wanted <= quota


def add(maildir: Path, octets: int) -> None:
    """Note that a message has come.  Raises OSError."""
    with suppress(FileNotFoundError):  # the next one to look counts it
        descriptor = os.open(maildir / FILE, os.O_WRONLY | os.O_APPEND | _NO_TRAPS)
        try:
            os.write(descriptor, b"%d 1\n" % octets)
        finally:
            os.close(descriptor)


def _read(maildir: Path, quota: int) -> int | None:
    """The octets in the Maildir by its file, if that is usable."""
    text, _ = _text(maildir)
    first, *lines = text.split(b"\n")
    if len(text) > MAX_OCTETS or first != _definition(quota):
        return None
    try:
        return max(0, sum(int(line.split()[0]) for line in lines if line.strip()))
    except ValueError:
        return None


def _is_fresh(maildir: Path) -> bool:
    """Tell whether the file was counted lately, and is unchanged since."""
    text, modified = _text(maildir)
    age = time.time() - modified
    return text.count(b"\n") <= 2 and 0 <= age < TRUSTED_FOR


def _text(maildir: Path) -> tuple[bytes, float]:
    """The text of the file, and the time of its last change.

    The text is cut behind `MAX_OCTETS`, and empty where there is no plain file.  The Maildir may
    be a user's: a link is not followed, and a FIFO not waited for.
    """
    try:
        descriptor = os.open(maildir / FILE, os.O_RDONLY | _NO_TRAPS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return b"", 0.0
        raise
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b"", 0.0
        return file.read(MAX_OCTETS + 1), status.st_mtime


def _count_anew(maildir: Path, quota: int) -> int:
    sizes = list(_sizes(maildir))
    octets = sum(sizes)
    text = b"%b\n%d %d\n" % (_definition(quota), octets, len(sizes))
    # In the Maildir itself, a name that begins with a dot is a folder.
    atomic_write(maildir / FILE, text, durable=False, draft_folder=maildir / "tmp")
    return octets


def _sizes(maildir: Path) -> Iterator[int]:
    """The octets of each message in the Maildir and its folders.

    A folder is a subdirectory whose name begins with a dot.
    """
    with os.scandir(maildir) as entries:
        folders = [
            entry.path for entry in entries if entry.name.startswith(".") and not entry.is_symlink()
        ]
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
