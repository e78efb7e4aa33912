"""Folders of a Maildir that are not there yet (Maildir++).

They are subfolders whose names begin with a dot.  Readers show those that
their owner has subscribed to: Dovecot has the list in a file of the Maildir.  All of it blocks.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mta.files import open_regular

JUNK = ".Junk"
MARK = "maildirfolder"  # an empty file, which says that this is no Maildir of its own
SUBSCRIPTIONS = "subscriptions"
MAX_SUBSCRIPTIONS = 256 * 1024  # octets: a longer file is left alone
_NO_TRAPS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def introduce(maildir: Path, folder: str) -> None:
    """Mark a new folder as one, and subscribe its owner to it.

    Mail is delivered without that as well: an error is of no consequence.
    """
    with suppress(OSError):
        flags = os.O_WRONLY | os.O_CREAT | _NO_TRAPS
        os.close(os.open(maildir / folder / MARK, flags, 0o600))
    with suppress(OSError):
        _subscribe(maildir, folder.removeprefix("."))


def _subscribe(maildir: Path, name: str) -> None:
    """Add a line to the list, in either form of it.  Raises OSError."""
    path = maildir / SUBSCRIPTIONS
    listed = b""
    with suppress(FileNotFoundError), open_regular(path) as file:
        listed = file.read(MAX_SUBSCRIPTIONS + 1)
    line = name.encode()
    if len(listed) > MAX_SUBSCRIPTIONS or line in listed.split(b"\n"):
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_TRAPS, 0o600)
    try:
        os.write(descriptor, (b"\n" if listed[-1:] not in (b"", b"\n") else b"") + line + b"\n")
    finally:
        os.close(descriptor)
