"""Letters on their way to the disk: the blocking half of Maildir delivery.

Letters are written into ``tmp`` and made durable together, renamed into ``new``, and the folders
are made durable.  What goes wrong with one letter is noted in it and spoils no other.

A batch is made durable by one syncfs(2), which costs about as much as the fsync of one file.  It
may have to write what other programs left on the same file system, too; who waits for that is
mail that is safe in the spool.

What is done for each letter takes its path as text: a Path costs as much as the system call.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mta.delivery import quota
from mta.delivery.filesystem import CAN_SYNC, sync_file_system

MAX_OPEN = 128  # files of one batch


@dataclass(eq=False)
class Letter:
    """One copy of a message for one Maildir.

    `base` is the part of the path that belongs to no mailbox.  `is_repeat`: an earlier attempt
    may have brought the letter there under this `name`.  `size` is what it takes of the `quota`
    of its mailbox, both in octets; no quota: 0.  `text` is empty where the letter is written in
    pieces.  `former`: what the Maildir was called by an earlier version, if that is another name;
    where it is there alone it goes on to be used.  Afterwards `error` says what went wrong, if
    anything did.
    """

    base: Path
    maildir: Path
    name: str
    fields: bytes
    is_repeat: bool = False
    quota: int = 0
    size: int = 0
    text: bytes = b""
    descriptor: int = -1
    device: int = 0  # the file system that it is on
    has_arrived: bool = False
    error: OSError | None = None
    former: Path | None = None
    is_over_quota: bool = False  # by the quota of its mailbox, not by the file system's

    @cached_property
    def draft(self) -> str:
        """Where the letter is until it is whole."""
        return f"{self.maildir}/tmp/{self.name}"  # noqa: S108 - the Maildir's own


def store(letters: Sequence[Letter]) -> None:
    """Bring whole letters onto stable storage.  Blocks."""
    for start in range(0, len(letters), MAX_OPEN):
        batch = letters[start : start + MAX_OPEN]
        begin(batch)
        _each(batch, lambda letter: _write(letter, letter.fields + letter.text))
        finish(batch)


def begin(letters: Sequence[Letter]) -> None:
    """Make Maildirs where there are none, and an empty file for each letter.  Blocks."""
    for letter in letters:
        if letter.former and letter.former.is_dir() and not letter.maildir.is_dir():
            letter.maildir = letter.former
    for maildir, own in _by_maildir(letters).items():
        try:
            device = _prepare(own[0].base, maildir)
            for letter in own:
                letter.device = device
            _find_arrived(maildir, own)
            _keep_quota(maildir, own)
        except OSError as error:
            _fail(own, error)
    _each(letters, _create)


def append(letter: Letter, piece: bytes) -> None:
    """Write the next piece of a letter that was begun.  Blocks."""
    _each([letter], lambda letter: _write(letter, piece))


def finish(letters: Sequence[Letter]) -> None:
    """Make letters durable and let readers see them.  Blocks."""
    for own in _by_device(letters):
        _make_durable(own)
    _each(letters, _close)
    _each(letters, _publish)
    for own in _by_device(letters):
        _sync_folders(own)


def abandon(letters: Iterable[Letter]) -> None:
    """Remove what was begun and will not be finished.  Blocks."""
    for letter in letters:
        _discard(letter)


# --- one letter


def _each(letters: Iterable[Letter], step: Callable[[Letter], None]) -> None:
    """Do something with every letter that still has to be brought there."""
    for letter in letters:
        if letter.error is None and not letter.has_arrived:
            try:
                step(letter)
            except OSError as error:
                _discard(letter)
                letter.error = error


def _create(letter: Letter) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        letter.descriptor = os.open(letter.draft, flags, 0o600)
    except FileExistsError:  # an attempt that died left it
        os.unlink(letter.draft)  # noqa: PTH108
        letter.descriptor = os.open(letter.draft, flags, 0o600)


def _write(letter: Letter, data: bytes) -> None:
    written = os.write(letter.descriptor, data)
    while written < len(data):  # a disk that is almost full takes less
        written += os.write(letter.descriptor, memoryview(data)[written:])


def _publish(letter: Letter) -> None:
    if letter.quota:
        with suppress(OSError):  # it is counted anew some time
            quota.add(letter.maildir, letter.size)
    os.rename(letter.draft, f"{letter.maildir}/new/{letter.name}")  # noqa: PTH104


def _close(letter: Letter) -> None:
    descriptor, letter.descriptor = letter.descriptor, -1
    os.close(descriptor)


def _discard(letter: Letter) -> None:
    if letter.descriptor >= 0:
        with suppress(OSError):
            _close(letter)
        with suppress(OSError):
            os.unlink(letter.draft)  # noqa: PTH108


# --- one file system


def _by_device(letters: Iterable[Letter]) -> list[list[Letter]]:
    """The letters that nothing went wrong with, by the file system that they are on."""
    found: dict[int, list[Letter]] = {}
    for letter in letters:
        if letter.error is None:
            found.setdefault(letter.device, []).append(letter)
    return list(found.values())


def _make_durable(letters: Iterable[Letter]) -> None:
    """Put what was written on stable storage: all of it at once, where that is possible."""
    written = [letter for letter in letters if not letter.has_arrived]
    if len(written) < 2 or not CAN_SYNC:
        _each(written, lambda letter: os.fsync(letter.descriptor))
        return
    try:
        sync_file_system(written[0].descriptor)
    except OSError as error:
        _fail(written, error)


def _sync_folders(letters: Sequence[Letter]) -> None:
    """Put the names of letters on stable storage."""
    maildirs = {letter.maildir for letter in letters}
    try:
        if len(maildirs) > 1 and CAN_SYNC:
            with _opened(letters[0].maildir) as descriptor:
                sync_file_system(descriptor)
        else:
            for maildir in maildirs:
                _sync(maildir / "new")
    except OSError as error:
        _fail(letters, error)


# --- one Maildir


def _by_maildir(letters: Iterable[Letter]) -> dict[Path, list[Letter]]:
    """The letters that nothing went wrong with, by where they go."""
    found: dict[Path, list[Letter]] = {}
    for letter in letters:
        if letter.error is None:
            found.setdefault(letter.maildir, []).append(letter)
    return found


def _fail(letters: Iterable[Letter], error: OSError) -> None:
    for letter in letters:
        _discard(letter)
        letter.error = error


def _prepare(base: Path, maildir: Path) -> int:
    """Make what is missing of a Maildir; returns the file system that it is on.

    ``tmp`` comes last: where it is, a crash can't take the rest away any more.
    """
    if not (_is_folder(maildir / "tmp") and _is_folder(maildir / "new")):
        for name in ("new", "cur"):
            _make_folder(maildir / name)
        folder = maildir
        while folder.is_relative_to(base):
            _sync(folder)
            folder = folder.parent
        _make_folder(maildir / "tmp")
    _is_folder(maildir / "cur")  # which a reader makes, where it is not there
    return (maildir / "tmp").lstat().st_dev


def _is_folder(path: Path) -> bool:
    """Whether there is a folder.  Raises OSError where a link leads elsewhere."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, f"`{path.name}` is a symbolic link", str(path))
    return stat.S_ISDIR(mode)


def _make_folder(folder: Path) -> None:
    """Make a folder with those above it, for nobody's eyes but ours."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):  # somebody else was faster; a file is found out below
        folder.mkdir(0o700)
    _sync(folder.parent)


def _keep_quota(maildir: Path, letters: Iterable[Letter]) -> None:
    """Note for which letters there is no room in the mailbox."""
    wanted = 0
    for letter in letters:
        if letter.quota and not letter.has_arrived:
            if quota.has_room(maildir, letter.quota, wanted + letter.size):
                wanted += letter.size
            else:
                letter.error = OSError(errno.EDQUOT, "its quota is used up")
                letter.is_over_quota = True


def _find_arrived(maildir: Path, letters: Iterable[Letter]) -> None:
    """Note which letters an earlier attempt has brought here."""
    sought = {letter.name: letter for letter in letters if letter.is_repeat}
    if not sought:
        return
    # In the order in which a reader moves them: none can slip past.
    for folder in ("new", "cur"):
        with suppress(FileNotFoundError), os.scandir(maildir / folder) as entries:
            for entry in entries:
                letter = sought.get(entry.name.partition(":")[0])
                if letter is not None:
                    letter.has_arrived = True


def _sync(folder: Path) -> None:
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
