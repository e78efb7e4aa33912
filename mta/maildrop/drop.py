"""Leaving a message in the maildrop of a spool."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from mta.mail import Envelope
from mta.maildrop import batch

FOLDER = "maildrop"  # in the spool
DRAFT = ".tmp"  # behind the name of what is not complete

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def try_out(spool: Path) -> None:
    """See that a message could be left, and leave none.  Raises OSError."""
    draft = spool / FOLDER / (secrets.token_hex(16) + DRAFT)
    os.close(os.open(draft, _NEW, 0o600))
    draft.unlink()


def leave(spool: Path, envelope: Envelope, pieces: Iterable[bytes]) -> None:
    """Put a message into the maildrop, on stable storage.

    The server is another user, so every user may read the file.  What keeps it private is a name
    that can't be listed or guessed.  Raises OSError; then nothing is left.
    """
    path = spool / FOLDER / secrets.token_hex(16)
    draft = path.with_name(path.name + DRAFT)
    descriptor = os.open(draft, _NEW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(batch.commands(envelope))
            file.writelines(pieces)
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
            draft.replace(path)
            # The folder can't be opened by us.  A file that has a new name takes it along.
            os.fsync(descriptor)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
