"""Message content on its way into the spool, and out of it.

The header section lives in the database, and so does a body of up to `SMALL` octets.  A larger one
is written to a file while it arrives, by threads, with at most two pieces of `SMALL` octets in
memory.
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
from mta.mail import Envelope
from mta.queued import IContent, IDraft
from mta.session import Origin
from mta.smtp import header
from mta.spool import queue_id
from mta.spool.database import as_oserror
from mta.spool.folder import Folder, create
from mta.spool.rows import Halves

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

    header_octets: bytes
    body_octets: bytes
    is_ascii: bool

    @property
    def size(self) -> int:
        """Octets."""
        return len(self.header_octets) + len(self.body_octets)

    async def header(self) -> bytes:
        """See `IContent.header`."""
        return self.header_octets

    async def body(self) -> AsyncIterator[bytes]:
        """See `IContent.body`."""
        yield self.body_octets

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent.pieces`."""
        yield self.header_octets
        yield self.body_octets


@implementer(IContent)
@dataclass(frozen=True, slots=True)
class RowContent:
    """Content that is in the database.

    `read` gets header section and body in a thread, None where the message is gone.
    """

    size: int
    is_ascii: bool
    name: str
    read: Callable[[], Deferred[Halves | None]]

    async def header(self) -> bytes:
        """See `IContent.header`."""
        section, _ = await self._halves()
        return section

    async def body(self) -> AsyncIterator[bytes]:
        """See `IContent.body`."""
        _, body = await self._halves()
        yield body

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent.pieces`."""
        for piece in await self._halves():
            yield piece

    async def _halves(self) -> tuple[bytes, bytes]:
        halves = await self.read()
        if halves is None:
            raise FileNotFoundError(f"content of {self.name} is no longer in the spool")
        section, body = halves
        return header.split(body) if section is None else (section, body)


@implementer(IContent)
@dataclass(frozen=True, slots=True)
class FileContent:
    """Content whose body is in a file of its own.

    `read_header` gets the header section in a thread, None where an older version put all of the
    content into the file.
    """

    size: int
    is_ascii: bool
    path: Path
    in_thread: InThread
    read_header: Callable[[], Deferred[bytes | None]]

    async def header(self) -> bytes:
        """See `IContent.header`."""
        section = await self.read_header()
        return await header.section_of(self._file()) if section is None else section

    async def body(self) -> AsyncIterator[bytes]:
        """See `IContent.body`."""
        is_apart = await self.read_header() is not None
        async for piece in self._file() if is_apart else header.body_of(self._file()):
            yield piece

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent.pieces`."""
        if section := await self.read_header():
            yield section
        async for piece in self._file():
            yield piece

    async def _file(self) -> AsyncIterator[bytes]:
        """The octets of the file, in pieces of at most `SMALL` octets."""
        file = await self.in_thread(open, self.path, "rb", 0)
        try:
            while piece := await self.in_thread(file.read, SMALL):
                yield piece
        finally:
            file.close()


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message to be committed; `hold` says why it is kept for the operator, if it is."""

    draft: Draft
    envelope: Envelope
    header: bytes
    origin: Origin
    hold: str = ""

    @property
    def size(self) -> int:
        """Octets of header section and body."""
        return len(self.header) + self.draft.size

    @property
    def is_ascii(self) -> bool:
        """Whether every octet is below 128."""
        return self.draft.is_ascii and self.header.isascii()


@implementer(IDraft)
class Draft:
    """A body that arrives, for a message with this number.

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
        """Return a small body; put a large one on stable storage, named, and return None.

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
