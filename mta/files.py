"""Replacing files whole, and making files as root for the server.

A reader sees the old text or the new one, never a part, and neither does a crash leave a part.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import BinaryIO

Stamp = tuple[int, int, int]

_DRAFT = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def atomic_write(
    path: Path,
    octets: bytes,
    mode: int = 0o600,
    *,
    overwrite: bool = True,
    durable: bool = True,
    draft_folder: Path | None = None,
    owner: tuple[int, int] | None = None,
) -> bool:
    """Write a file whole; returns whether it was written.

    It is not where `overwrite` is False and there is a file already.  The new file has the owner
    of the old one; where there was none and root writes, the owner of its folder.  `owner`: the
    user and group that root gives the file to instead.  `durable`: on stable storage at return.
    `draft_folder`: a folder on the same disk for the file until it is complete.

    Raises OSError; then the file is as it was, and nothing else is left.
    """
    # A name that no user can guess, and put a link there for root to follow.
    draft = (draft_folder or path.parent) / f".{path.name}.{secrets.token_hex(8)}"
    descriptor = os.open(draft, _DRAFT, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if owner is not None:
                os.fchown(descriptor, *owner)
            else:
                _give_to_owner(descriptor, path)
            os.fchmod(descriptor, mode)  # the umask has taken rights off
            _write(file, octets, durable)
        if overwrite:
            draft.replace(path)
        else:
            os.link(draft, path)
    except FileExistsError:
        return False
    except OSError as error:
        error.filename = str(path)  # the draft's name, or none, would tell the operator nothing
        raise
    finally:
        draft.unlink(missing_ok=True)  # nothing after `replace`
    if durable:
        sync(path.parent)
    return True


def in_words(error: OSError) -> str:
    """The reason of an error for people, with its file, if any."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read it.

    Raises OSError, also for a pipe, a socket or a device, which may never end.
    """
    # Opening a pipe waits for a writer, unless it is told not to.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with closed_on_error(descriptor):
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return os.fdopen(descriptor, "rb")


@contextmanager
def closed_on_error(descriptor: int) -> Iterator[None]:
    """Close an open file where an error is raised."""
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise


def stamp(path: Path) -> Stamp | None:
    """A value that differs once the file was replaced or written.

    None: it can't be looked at, as where there is none.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def create(path: Path, flags: int) -> int:
    """Open a file of its folder's owner, made with mode 0600.

    Returns its descriptor.  Raises OSError, also where the name is a symbolic link.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with closed_on_error(descriptor):
        if os.geteuid() == 0 and os.fstat(descriptor).st_size == 0:  # it may be new
            ours, owner = os.fstat(descriptor), path.parent.stat()
            if ours.st_uid == 0 and ours.st_nlink == 1:  # and none of root's that was linked there
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


@contextmanager
def locked(descriptor: int) -> Iterator[None]:
    """Keep an open file locked against other processes.

    It is closed at the end.  Blocks.  Raises OSError.
    """
    try:
        flock(descriptor, LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def locked_folder(folder: Path) -> AbstractContextManager[None]:
    """Keep a folder locked while a file in it is replaced.

    Blocks.  Raises OSError.
    """
    return locked(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def give_to_folder_owner(path: Path) -> None:
    """Let the owner of a folder use what root made in it.  Raises OSError."""
    if os.geteuid() == 0:
        status = path.parent.stat()
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)


def _write(file: BinaryIO, octets: bytes, durable: bool) -> None:
    file.write(octets)
    file.flush()
    if durable:
        os.fsync(file.fileno())


def make_folder(folder: Path, mode: int) -> None:
    """Make a folder, if need be, whose name is on stable storage.  Raises OSError."""
    try:
        folder.mkdir(mode)
    except FileExistsError:
        return  # a link, or no folder, is found out by what is done next
    sync(folder.parent)


def sync(folder: Path) -> None:
    """Put the names in a folder on stable storage.  Raises OSError."""
    _sync(folder, os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Put what a file holds on stable storage.  Raises OSError."""
    _sync(path, os.O_NOFOLLOW)


def _sync(path: Path, flag: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | flag | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _give_to_owner(descriptor: int, path: Path) -> None:
    """Give a draft to the owner of the file that it replaces."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        status = path.parent.stat()
    if os.geteuid() == 0:
        os.fchown(descriptor, status.st_uid, status.st_gid)
    elif path.exists():
        with suppress(PermissionError):  # not a group of ours
            os.fchown(descriptor, -1, status.st_gid)
