"""Message content on its way into the spool, and out of it.

Content up to `SMALL` octets lives in memory and in the database.  Larger content is written to a
file while it arrives, by threads, with at most two pieces of `SMALL` octets in memory.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.files import sync
from mta.limited_log import LimitedLog
from mta.queued import IContent, IDraft
from mta.spool import queue_id
from mta.spool.database import as_oserror
from mta.spool.folder import Folder, create

_limited = LimitedLog(Logger())

SMALL = 256 * 2**10  # octets
MIN_PIECE = 4096  # octets; smaller ones are joined, as each piece takes some memory of its own


class InThread(Protocol):
    """Calls a function that blocks, somewhere where that does no harm."""

    def __call__(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]: ...


@implementer(IContent)
@dataclass(frozen=True, slots=True)
class MemoryContent:
    """Content that is still in memory."""

    data: bytes
    is_ascii: bool

    @property
    def size(self) -> int:
        """Octets."""
        return len(self.data)

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it."""
        yield self.data


@implementer(IContent)
@dataclass(frozen=True, slots=True)
class RowContent:
    """Content that is in the database; `read` gets it, in a thread."""

    size: int
    is_ascii: bool
    name: str
    read: Callable[[], Deferred[bytes | None]]

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it.  Raises OSError where it can't be read or was removed."""
        data = await self.read()
        if data is None:
            raise FileNotFoundError(f"content of {self.name} is no longer in the spool")
        yield data


@implementer(IContent)
@dataclass(frozen=True, slots=True)
class FileContent:
    """Content that is in a file of its own."""

    size: int
    is_ascii: bool
    path: Path
    in_thread: InThread

    async def pieces(self) -> AsyncIterator[bytes]:
        """Pieces of at most `SMALL` octets.  Raises OSError."""
        file = await self.in_thread(open, self.path, "rb", 0)
        try:
            while piece := await self.in_thread(file.read, SMALL):
                yield piece
        finally:
            file.close()


@implementer(IDraft)
class Draft:
    """Content that arrives, for a message with this number.

    `discarded` is called with the number when it will not become a message.
    """

    def __init__(
        self,
        number: int,
        folder: Folder,
        owner: int,
        in_thread: InThread,
        discarded: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.number = number
        self.id = queue_id.encode(number)
        self.size = 0
        self.is_ascii = True
        self._folder = folder
        self._owner = owner
        self._in_thread = in_thread
        self._on_discard = discarded
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._in_file = False
        self._writing: Deferred[None] | None = None
        self._lock = threading.Lock()  # protects what follows, which belongs to the threads
        self._file: int | None = None  # descriptor
        self._discarded = False

    async def write(self, piece: bytes) -> None:
        """Append octets.  Raises SpoolFull or OSError, perhaps of an earlier piece."""
        if self._pieces and len(self._pieces[-1]) < MIN_PIECE:
            self._pieces[-1] += piece
        else:
            self._pieces.append(piece)
        self._buffered += len(piece)
        self.size += len(piece)
        self.is_ascii = self.is_ascii and piece.isascii()
        if self._buffered > SMALL:
            await self._flush()

    async def finish(self) -> bytes | None:
        """Return small content; put large content on stable storage, named, and return None.

        Raises SpoolFull or OSError.
        """
        if not self._in_file:
            return b"".join(self._pieces)
        await self._flush()
        await self._written()
        await self._in_thread(self._seal)
        return None

    def committed(self) -> Deferred[None] | None:
        """A message refers to the content now: only its lasting name is to stay.

        Fires when it is so; None where it is so already.
        """
        self._pieces = []
        if not self._in_file:
            return None
        self._in_file = False
        # Where it can't be removed, take-over finds it, and the message is safe.
        return self._in_thread(self._incoming.unlink).addErrback(self._not_removed)

    def discard(self) -> None:
        """Forget it, and whatever of it was written."""
        self._on_discard(self.number)
        self._pieces = []
        if self._in_file:
            self._in_file = False
            if self._writing:
                self._writing.addErrback(lambda _: None)  # nobody needs to know any more
            self._in_thread(self._remove).addErrback(self._not_removed)

    async def _flush(self) -> None:
        """Begin to write what is buffered, once what was buffered before is written."""
        await self._written()
        self._in_file = True
        pieces, self._pieces, self._buffered = self._pieces, [], 0
        self._writing = self._in_thread(self._append, b"".join(pieces))

    async def _written(self) -> None:
        if self._writing:
            writing, self._writing = self._writing, None
            await writing

    def _not_removed(self, failure: Failure) -> None:
        _limited.warn(
            "unlink",
            "{queue_id}: {error}",
            queue_id=self.id,
            error=failure.getErrorMessage(),
        )

    @property
    def _incoming(self) -> Path:
        return self._folder.incoming(self._owner, self.number)

    # --- in a thread -----------------------------------------------------------------

    def _append(self, data: bytes) -> None:
        with self._lock, as_oserror(self._folder):
            if self._discarded:
                return
            self._folder.require_room()
            if self._file is None:
                self._file = create(self._incoming, os.O_WRONLY | os.O_EXCL)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def _seal(self) -> None:
        with self._lock, as_oserror(self._folder):
            assert self._file is not None
            os.fsync(self._file)
            self._close()
            sync(self._folder.arrivals)
            os.link(self._incoming, self._folder.content(self.number))
            sync(self._folder.contents)

    def _remove(self) -> None:
        with self._lock:
            self._discarded = True
            self._close()
            self._folder.content(self.number).unlink(missing_ok=True)
            self._incoming.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            descriptor, self._file = self._file, None
            os.close(descriptor)
