"""Messages on their way into the spool.

A body of up to `SMALL` octets stays in memory until the commit.  A larger one is written to a file
while it arrives, by threads, with at most two pieces of `SMALL` octets in memory.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from zope.interface import implementer

from mta.files import create, sync
from mta.mail import Envelope
from mta.queued import IContent, IDraft
from mta.session import Origin
from mta.spool import queue_id
from mta.spool.content import SMALL, ArrivedContent, InThread, MemoryContent
from mta.spool.database import as_oserror
from mta.spool.folder import Folder
from mta.spool.interfaces import IDrafts

# Tools begin at once: they use the room without Twisted.
if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from mta.limited_log import LimitedLog

MIN_PIECE = 4096  # octets: smaller pieces are joined, as each takes some memory of its own


@implementer(IDraft)
class Draft:
    """The body of a message, as it arrives.

    `number` is the number of the message.  `arriving`: the numbers of drafts whose messages may be
    committed in a moment, which a discarded one leaves.
    """

    def __init__(
        self, number: int, folder: Folder, owner: int, in_thread: InThread, arriving: set[int]
    ) -> None:
        self.number = number
        self.id = queue_id.encode(number)
        self.size = 0
        self.is_ascii = True
        self._folder = folder
        self._owner = owner
        self._in_thread = in_thread
        self._arriving = arriving
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._in_file = False
        self._writing: Deferred[None] | None = None
        self._lock = threading.Lock()  # protects what follows, which belongs to the threads
        self._file: int | None = None  # descriptor
        self._discarded = False

    def address(self, envelope: Envelope) -> None:
        """See `IDraft.address`: here all mail is kept alike."""

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

    async def arrived(self, header: bytes) -> IContent:
        """Return the content, all of which has come, behind a header section.

        It may never be committed: others wait for it no more.  Raises SpoolFull or OSError.
        """
        self._arriving.discard(self.number)
        is_ascii = self.is_ascii and header.isascii()
        if not self._in_file:
            return MemoryContent(header, b"".join(self._pieces), is_ascii)
        await self._flush()
        await self._written()
        names = (self._incoming, self._folder.content(self.number))
        return ArrivedContent(header, len(header) + self.size, is_ascii, names, self._in_thread)

    async def finish(self) -> bytes | None:
        """Return a small body, or put a large one on stable storage.

        Returns None then.  Raises SpoolFull or OSError.
        """
        if not self._in_file:
            return b"".join(self._pieces)
        await self._flush()
        await self._written()
        await self._in_thread(self._seal)
        return None

    async def replace(self, other: IDraft) -> None:
        """See `IDraft.replace`."""
        assert isinstance(other, Draft)
        await other._written()
        await self._written()
        if self._in_file or other._in_file:
            await self._in_thread(self._take_file, other)
        self._pieces, self._buffered = other._pieces, other._buffered
        self.size, self.is_ascii = other.size, other.is_ascii
        self._in_file = other._in_file
        other._in_file = False
        other.discard()

    def committed(self) -> Deferred[None] | None:
        """Give up the draft's own name for its file.

        A message refers to it by another one.

        Fires when it is removed; None where there is none.
        """
        self._pieces = []
        if not self._in_file:
            return None
        self._in_file = False
        # Where it can't be removed, take-over finds it, and the message is safe.
        return self._in_thread(self._incoming.unlink).addErrback(self._not_removed)

    def discard(self) -> None:
        """See `IDraft.discard`."""
        self._arriving.discard(self.number)
        self._pieces = []
        if self._in_file:
            self._in_file = False
            if self._writing:
                self._writing.addErrback(lambda _: None)  # whatever failed is removed
            self._in_thread(self._remove).addErrback(self._not_removed)

    async def _flush(self) -> None:
        """Begin to write what is buffered, after what was buffered before."""
        await self._written()
        self._in_file = True
        pieces, self._pieces, self._buffered = self._pieces, [], 0
        self._writing = self._in_thread(self._append, b"".join(pieces))

    async def _written(self) -> None:
        if self._writing:
            writing, self._writing = self._writing, None
            await writing

    def _not_removed(self, failure: Failure) -> None:
        _limited().warn(
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

    def _take_file(self, other: Draft) -> None:
        """Have the file of another draft, or none where it has none."""
        with self._lock, other._lock:
            self._close()
            if other._file is None:
                self._incoming.unlink(missing_ok=True)
            else:
                other._incoming.replace(self._incoming)
                self._file, other._file = other._file, None

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


@implementer(IDrafts)
@dataclass(frozen=True, slots=True)
class Drafts:
    """Makes drafts in a folder."""

    folder: Folder
    owner: int
    in_thread: InThread

    def begin(self, number: int, arriving: set[int]) -> Draft:
        """See `IDrafts.begin`."""
        return Draft(number, self.folder, self.owner, self.in_thread, arriving)


@cache
def _limited() -> LimitedLog:
    from twisted.logger import Logger

    from mta.limited_log import LimitedLog

    return LimitedLog(Logger())


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message to be committed.

    `hold` says why it is kept for the operator, where it is.
    """

    draft: Draft
    envelope: Envelope
    header: bytes
    origin: Origin
    hold: str = ""

    @property
    def size(self) -> int:
        """The octets of header section and body."""
        return len(self.header) + self.draft.size

    @property
    def is_ascii(self) -> bool:
        """Tell whether every octet is below 128."""
        return self.draft.is_ascii and self.header.isascii()
