"""The folder of a spool: its files, and room on the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mta.files import create, give_to_folder_owner, sync
from mta.queued import SpoolFull
from mta.settings import HOUR, MIB
from mta.spool import queue_id

BALLAST = 16 * MIB  # octets: enough for commits that make room
MIN_UNKNOWN_AGE = HOUR  # seconds: a younger file without a message may be one that arrives


@dataclass(slots=True)
class Folder:
    """The folder of a spool.

    `reserve`: octets of its disk that are not for new mail.
    """

    path: Path
    reserve: int = 0

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / "queue.sqlite"

    @property
    def commit_lock(self) -> Path:
        """The file that is locked during a commit."""
        return self.path / "commit.lock"

    @property
    def contents(self) -> Path:
        """The folder for the content of large messages."""
        return self.path / "content"

    @property
    def arrivals(self) -> Path:
        """The folder for content that no committed message refers to yet."""
        return self.path / "incoming"

    @property
    def ballast(self) -> Path:
        """A file that takes room until the disk is full."""
        return self.path / "ballast"

    @property
    def owners(self) -> Path:
        """The folder for the locks of living processes."""
        return self.path / "owners"

    def content(self, number: int) -> Path:
        """The file of a large message."""
        return self.contents / queue_id.encode(number)

    def length(self, number: int) -> int | None:
        """The octets in the file of a large message; None: no file.

        Raises OSError.
        """
        try:
            return self.content(number).stat().st_size
        except FileNotFoundError:
            return None

    def incoming(self, owner: int, number: int) -> Path:
        """The name of the same file until its message is committed."""
        return self.arrivals / f"{queue_id.encode(owner)}.{queue_id.encode(number)}"

    def incoming_of(self, owner: int) -> Iterator[int]:
        """The ids of an owner's incoming files."""
        for path in self.arrivals.glob(f"{queue_id.encode(owner)}.*"):
            with suppress(ValueError):  # no name of ours
                yield queue_id.decode(path.name.partition(".")[2])

    def make(self) -> None:
        """Make what is missing.  Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.path, self.contents, self.arrivals, self.owners):
            if not path.exists():
                path.mkdir(0o700, exist_ok=True)
                give_to_folder_owner(path)
                sync(path.parent)
        if not self.commit_lock.exists():
            with suppress(PermissionError):  # to read the one above
                sync(self.path.parent)  # others made ours
            os.close(create(self.commit_lock, os.O_RDWR))

    def traces(self) -> str:
        """The name of a file that only used spools have, if any."""
        for folder in (self.contents, self.arrivals, self.path / "peers"):
            if folder.exists() and (file := next(folder.iterdir(), None)):
                return str(file)
        used = (path for path in (self.path / "srs.key", self.ballast) if path.exists())
        return str(next(used, ""))

    def complete(self) -> set[int]:
        """The ids of complete content that has its lasting name alone.

        Each of them has, or had a moment ago, a row.  Raises OSError.
        """
        named = set(numbers_in(self.contents))
        return named - {number for _, number in self.incoming_files()}

    def incoming_files(self) -> Iterator[tuple[int, int]]:
        """The owner and the id of each incoming file.  Raises OSError."""
        for path in self.arrivals.iterdir():
            owner, _, number = path.name.partition(".")
            with suppress(ValueError):  # no name of ours
                yield queue_id.decode(owner), queue_id.decode(number)

    def has_room(self, spare: int = 0) -> bool:
        """Tell whether more than the reserve of the disk is left.

        `spare`: octets that are free in the database.
        """
        return self._free() + spare >= self.reserve

    def require_room(self, spare: int = 0) -> None:
        """Raise SpoolFull where there is no room, as `has_room` says."""
        if not self.has_room(spare):
            text = f"less than {self.reserve // MIB} MiB are free"
            raise SpoolFull(errno.ENOSPC, text, str(self.path))

    def make_ballast(self) -> None:
        """Make the ballast, if there is room for it.  Raises OSError."""
        if self.ballast.exists() or self._free() < self.reserve + BALLAST:
            return
        with suppress(FileExistsError):  # another process was faster
            descriptor = create(self.ballast, os.O_WRONLY | os.O_EXCL)
            try:
                os.posix_fallocate(descriptor, 0, BALLAST)
            except OSError:
                self.ballast.unlink()  # one without its size is of no use, and would stay
                raise
            finally:
                os.close(descriptor)

    def drop_ballast(self) -> bool:
        """Remove the ballast; returns whether there was one.  Raises OSError."""
        try:
            self.ballast.unlink()
        except FileNotFoundError:
            return False
        return True

    def _free(self) -> int:
        """The octets that are free for users other than root."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize


def numbers_in(folder: Path, suffix: str = "") -> Iterator[int]:
    """The ids that files in a folder are named by.  Raises OSError."""
    for path in folder.iterdir():
        with suppress(ValueError):
            if path.suffix == suffix:
                yield queue_id.decode(path.stem)
