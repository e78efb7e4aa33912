"""The files of a Maildir: the blocking half of its delivery.

Files are written into ``tmp`` and synced together, renamed into ``new``, and the folders are
synced.  An error with one file is noted in it, and harms no other.

A batch is synced by one syncfs(2), which costs about as much as the fsync of one file.  It may have
to write what other programs left on the same file system, too; what waits for that is mail that is
safe in the spool.

Paths of files are text here: a Path costs as much as the system call.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path

from mta.delivery import maildir_folders, quota
from mta.delivery.filesystem import CAN_SYNC, sync_file_system

MAX_OPEN = 128  # files: of one batch, which are all open together


@dataclass(eq=False)
class MaildirFile:
    """One copy of a message for one Maildir.

    `base` is the part of the path that belongs to no mailbox, `fields` are the trace fields.
    `is_repeat`: an earlier attempt may have delivered the file under this `name`.  `size` is what
    it takes of the `quota` of its mailbox, both in octets; no quota: 0.  `text` is empty where the
    file is written in pieces.  `former` is the path by which earlier versions called the Maildir,
    if another: where only that exists it goes on to be used.  `folder` is that of Maildir++ in it
    which the file is for, such as ``.Junk``; empty: the Maildir itself.  Afterwards `error` says
    what went wrong, if anything did.
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
    folder: str = ""

    @cached_property
    def place(self) -> Path:
        """The folder with ``new`` and ``tmp`` that gets the file."""
        return self.maildir / self.folder if self.folder else self.maildir

    @cached_property
    def draft(self) -> str:
        """The path of the file until it is whole."""
        return f"{self.place}/tmp/{self.name}"  # noqa: S108 - the Maildir's own


def store(files: Sequence[MaildirFile]) -> None:
    """Bring whole files onto stable storage.  Blocks."""
    for start in range(0, len(files), MAX_OPEN):
        batch = files[start : start + MAX_OPEN]
        write(batch)
        finish(batch)


def write(files: Sequence[MaildirFile]) -> None:
    """Write whole files, which `finish` makes durable.  Blocks."""
    begin(files)
    _each(files, lambda file: _write(file, file.fields + file.text))


def begin(files: Sequence[MaildirFile]) -> None:
    """Make the Maildirs that are missing, and the files, empty.  Blocks."""
    for file in files:
        if file.former and file.former.is_dir() and not file.maildir.is_dir():
            file.maildir = file.former
    for place, group in _grouped(files, attrgetter("place")).items():
        with _failing(group):
            device = _prepare_place(group[0])
            for file in group:
                file.device = device
            _find_arrived(place, group)
    for maildir, group in _grouped(files, attrgetter("maildir")).items():
        with _failing(group):
            _keep_quota(maildir, group)
    _each(files, _create)


def append(file: MaildirFile, piece: bytes) -> None:
    """Write the next piece of a file that was begun.  Blocks."""
    _each([file], lambda file: _write(file, piece))


def finish(files: Sequence[MaildirFile]) -> None:
    """Make files durable and let readers see them.  Blocks."""
    for group in _by_device(files):
        _make_durable(group)
    _each(files, _close)
    _each(files, _publish)
    for group in _by_device(files):
        _sync_folders(group)


def abandon(files: Iterable[MaildirFile]) -> None:
    """Remove what was begun and will not be finished.  Blocks."""
    for file in files:
        _discard(file)


# --- one file


def _each(files: Iterable[MaildirFile], step: Callable[[MaildirFile], None]) -> None:
    """Do something with every file that still has to be brought there."""
    for file in files:
        if file.error is None and not file.has_arrived:
            try:
                step(file)
            except OSError as error:
                _discard(file)
                file.error = error


def _create(file: MaildirFile) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file.descriptor = os.open(file.draft, flags, 0o600)
    except FileExistsError:  # an attempt that died left it
        os.unlink(file.draft)  # noqa: PTH108
        file.descriptor = os.open(file.draft, flags, 0o600)


def _write(file: MaildirFile, data: bytes) -> None:
    written = os.write(file.descriptor, data)
    while written < len(data):  # a disk that is almost full takes less
        written += os.write(file.descriptor, memoryview(data)[written:])


def _publish(file: MaildirFile) -> None:
    if file.quota:
        with suppress(OSError):  # it is counted anew some time
            quota.add(file.maildir, file.size)
    os.rename(file.draft, f"{file.place}/new/{file.name}")  # noqa: PTH104


def _close(file: MaildirFile) -> None:
    descriptor, file.descriptor = file.descriptor, -1
    os.close(descriptor)


def _discard(file: MaildirFile) -> None:
    if file.descriptor >= 0:
        with suppress(OSError):
            _close(file)
        with suppress(OSError):
            os.unlink(file.draft)  # noqa: PTH108


# --- one file system


def _by_device(files: Iterable[MaildirFile]) -> list[list[MaildirFile]]:
    """The files without an error, by the file system that has them."""
    found: dict[int, list[MaildirFile]] = {}
    for file in files:
        if file.error is None:
            found.setdefault(file.device, []).append(file)
    return list(found.values())


def _make_durable(files: Iterable[MaildirFile]) -> None:
    """Put files on stable storage, all at once where possible."""
    written = [file for file in files if not file.has_arrived]
    if len(written) < 2 or not CAN_SYNC:
        _each(written, lambda file: os.fsync(file.descriptor))
        return
    try:
        sync_file_system(written[0].descriptor)
    except OSError as error:
        _fail(written, error)


def _sync_folders(files: Sequence[MaildirFile]) -> None:
    """Put the names of files on stable storage."""
    places = {file.place for file in files}
    with _failing(files):
        if len(places) > 1 and CAN_SYNC:
            with _opened(files[0].place) as descriptor:
                sync_file_system(descriptor)
        else:
            for place in places:
                _sync(place / "new")


# --- one Maildir


def _grouped(
    files: Iterable[MaildirFile], key: Callable[[MaildirFile], Path]
) -> dict[Path, list[MaildirFile]]:
    """The files without an error, by some folder of theirs."""
    found: dict[Path, list[MaildirFile]] = {}
    for file in files:
        if file.error is None:
            found.setdefault(key(file), []).append(file)
    return found


@contextmanager
def _failing(files: Iterable[MaildirFile]) -> Iterator[None]:
    """Note an error with all of these files."""
    try:
        yield
    except OSError as error:
        _fail(files, error)


def _fail(files: Iterable[MaildirFile], error: OSError) -> None:
    for file in files:
        _discard(file)
        file.error = error


def _prepare_place(file: MaildirFile) -> int:
    """Make what is missing of Maildir and folder; returns the file system."""
    device = _prepare(file.base, file.maildir)
    if file.folder:
        is_new = _device(str(file.place)) is None
        device = _prepare(file.place, file.place)
        if is_new:
            maildir_folders.introduce(file.maildir, file.folder)
    return device


def _prepare(base: Path, maildir: Path) -> int:
    """Make the missing folders of a Maildir; returns its file system.

    ``tmp`` comes last: where it is, a crash can't take the rest away any more.
    """
    device = _device(f"{maildir}/tmp")  # noqa: S108 - the Maildir's own
    if device is None or _device(f"{maildir}/new") is None:
        for name in ("new", "cur"):
            _make_folder(maildir / name)
        folder = maildir
        while folder.is_relative_to(base):
            _sync(folder)
            folder = folder.parent
        _make_folder(maildir / "tmp")
        device = os.lstat(maildir / "tmp").st_dev
    _device(f"{maildir}/cur")  # which a reader makes, where it is not there
    return device


def _device(path: str) -> int | None:
    """The file system of a folder; None where there is no folder.

    Raises OSError for a symbolic link.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        name = path.rpartition("/")[2]
        raise OSError(errno.ELOOP, f"`{name}` is a symbolic link", path)
    return found.st_dev if stat.S_ISDIR(found.st_mode) else None


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it, for our user alone."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):  # another process was faster; a file is found out below
        folder.mkdir(0o700)
    _sync(folder.parent)


def _keep_quota(maildir: Path, files: Iterable[MaildirFile]) -> None:
    """Note for which files there is no room in the mailbox."""
    wanted = 0
    for file in files:
        if file.quota and not file.has_arrived:
            if quota.has_room(maildir, file.quota, wanted + file.size):
                wanted += file.size
            else:
                file.error = OSError(errno.EDQUOT, "its quota is used up")
                file.is_over_quota = True


def _find_arrived(maildir: Path, files: Iterable[MaildirFile]) -> None:
    """Note which files an earlier attempt has brought here."""
    sought = {file.name: file for file in files if file.is_repeat}
    if not sought:
        return
    # In the order in which a reader moves them: none can slip past.
    for folder in ("new", "cur"):
        with suppress(FileNotFoundError), os.scandir(maildir / folder) as entries:
            for entry in entries:
                file = sought.get(entry.name.partition(":")[0])
                if file is not None:
                    file.has_arrived = True


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
