"""Content of queued messages: in memory, in the database, or in files.

The header section is in the database, and so is a body of up to `SMALL` octets; a larger one is in
a file.  `mta.spool.drafts` is the way in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zope.interface import Attribute, Interface, implementer

from mta.queued import IContent
from mta.smtp import header
from mta.spool import queue_id, rows
from mta.spool.folder import Folder
from mta.spool.loading import ContentKey
from mta.spool.read_connection import ReadConnection

# Tools begin at once: they use the room without Twisted.
if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

SMALL = 256 * 2**10  # octets: larger bodies would make the database's log long


class InThread(Protocol):
    """Calls a function that blocks, where that does no harm."""

    def __call__(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]: ...


class IContentSource(Interface):
    """The content in a store."""

    def content(key: ContentKey) -> IContent:
        """The content of a message."""

    def halves(number: int) -> Deferred[rows.Halves | None]:
        """The content that the database has of a message.  Fails with OSError."""

    def header(number: int) -> Deferred[bytes | None]:
        """The header section that the database has of a message.  Fails with OSError."""

    def file(number: int) -> AsyncIterator[bytes]:
        """The octets of a large body, in pieces.  Raises OSError."""


@implementer(IContentSource)
@dataclass(frozen=True, slots=True)
class ContentSource:
    """The content in a spool, read in threads."""

    folder: Folder
    reader: ReadConnection
    in_thread: InThread

    def content(self, key: ContentKey) -> IContent:
        """The content of a message."""
        if key.in_file:
            return FileContent(key.size, key.is_ascii, key.number, self)
        return RowContent(key.size, key.is_ascii, key.number, self)

    def halves(self, number: int) -> Deferred[rows.Halves | None]:
        """The content that the database has of a message.  Fails with OSError."""
        return self.in_thread(self.reader.call, rows.content, number)

    def header(self, number: int) -> Deferred[bytes | None]:
        """The header section that the database has of a message.  Fails with OSError."""
        return self.in_thread(self.reader.call, rows.header, number)

    def file(self, number: int) -> AsyncIterator[bytes]:
        """The octets of a message's file, in pieces.  Raises OSError."""
        return _file(self.in_thread, self.folder.content(number))


async def _file(in_thread: InThread, *names: Path) -> AsyncIterator[bytes]:
    """The octets of a file, by the first name that there is."""
    file = await in_thread(_opened, *names)
    try:
        while piece := await in_thread(file.read, SMALL):
            yield piece
    finally:
        file.close()


def _opened(*names: Path) -> FileIO:
    for name in names[:-1]:
        with suppress(FileNotFoundError):
            return FileIO(name)
    return FileIO(names[-1])


@implementer(IContent)
@dataclass(frozen=True, slots=True)
class MemoryContent:
    """Content that is still in memory."""

    header_octets: bytes
    body_octets: bytes
    is_ascii: bool

    @property
    def size(self) -> int:
        """See `IContent.size`."""
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


class IFiledContent(IContent):
    """Content of a draft whose body is in a file."""

    names: Sequence[Path] = Attribute("the names that the file may have, until its draft is gone")


@implementer(IFiledContent)
@dataclass(frozen=True, slots=True)
class ArrivedContent:
    """Content with its body in a draft's file, perhaps committed meanwhile.

    `names` are those that the file may have.
    """

    header_octets: bytes
    size: int
    is_ascii: bool
    names: Sequence[Path]
    in_thread: InThread

    async def header(self) -> bytes:
        """See `IContent.header`."""
        return self.header_octets

    def body(self) -> AsyncIterator[bytes]:
        """See `IContent.body`."""
        return _file(self.in_thread, *self.names)

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent.pieces`."""
        yield self.header_octets
        async for piece in self.body():
            yield piece


@implementer(IContent)
@dataclass(frozen=True, slots=True)
class RowContent:
    """Content that is in the database, whole."""

    size: int
    is_ascii: bool
    number: int
    source: IContentSource

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
        halves = await self.source.halves(self.number)
        if halves is None:
            name = queue_id.encode(self.number)
            raise FileNotFoundError(f"content of {name} is no longer in the spool")
        section, body = halves
        return header.split(body) if section is None else (section, body)


@implementer(IContent)
@dataclass(frozen=True, slots=True)
class FileContent:
    """Content whose body is in a file of its own.

    Older versions put the header section into the file, too.
    """

    size: int
    is_ascii: bool
    number: int
    source: IContentSource

    async def header(self) -> bytes:
        """See `IContent.header`."""
        section = await self.source.header(self.number)
        return await header.section_of(self._file()) if section is None else section

    async def body(self) -> AsyncIterator[bytes]:
        """See `IContent.body`."""
        is_apart = await self.source.header(self.number) is not None
        async for piece in self._file() if is_apart else header.body_of(self._file()):
            yield piece

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent.pieces`."""
        if section := await self.source.header(self.number):
            yield section
        async for piece in self._file():
            yield piece

    def _file(self) -> AsyncIterator[bytes]:
        return self.source.file(self.number)
