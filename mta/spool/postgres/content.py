"""Content in PostgreSQL.

Small bodies are in the row of their message, large ones in chunks.  While a large body arrives it
is a file of its node.  Its chunks are written when it is complete, in short transactions: one that
is open while a client sends would keep the server from vacuuming.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zope.interface import implementer

from mta.queued import IContent
from mta.spool import queue_id
from mta.spool.content import (
    SMALL,
    ArrivedContent,
    FileContent,
    IContentSource,
    IFiledContent,
    InThread,
    RowContent,
)
from mta.spool.drafts import Draft
from mta.spool.folder import Folder
from mta.spool.interfaces import IDrafts
from mta.spool.loading import ContentKey
from mta.spool.postgres import rows
from mta.spool.postgres.server import Connection, Session
from mta.spool.rows import Halves

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@implementer(IContentSource)
@dataclass(frozen=True, slots=True)
class PostgresContent:
    """The content in the database, read in threads."""

    session: Session
    in_thread: InThread

    def content(self, key: ContentKey) -> IContent:
        """The content of a message."""
        if key.in_file:
            return FileContent(key.size, key.is_ascii, key.number, self)
        return RowContent(key.size, key.is_ascii, key.number, self)

    def halves(self, number: int) -> Deferred[Halves | None]:
        """The content that the row of a message has.  Fails with OSError."""
        return self.in_thread(self.session.call, rows.content, number)

    def header(self, number: int) -> Deferred[bytes | None]:
        """The header section that the row of a message has.  Fails with OSError."""
        return self.in_thread(self.session.call, rows.header, number)

    async def file(self, number: int) -> AsyncIterator[bytes]:
        """The chunks of a large body.  Raises OSError, also where one is missing."""
        count = await self.in_thread(self.session.call, _chunk_count, number)
        for place in range(max(1, count)):
            chunk = await self.in_thread(self.session.call, _chunk, number, place)
            if chunk is None:
                name = queue_id.encode(number)
                raise FileNotFoundError(f"content of {name} is no longer in the spool")
            yield chunk


class Uploads:
    """Large bodies on their way into the database, of one owner.  Everything blocks."""

    def __init__(self, session: Session, owner: int) -> None:
        """Take a session whose commits need not be durable at once."""
        self._session = session
        self.owner = owner

    def store(self, number: int, path: Path) -> None:
        """Write the chunks of a body.  Raises SpoolFull or OSError."""
        self._session.call(_begin, number, self.owner)
        with path.open("rb", 0) as file:
            place = 0
            while piece := file.read(SMALL):
                self._session.call(_append, number, place, piece)
                place += 1

    def discard(self, number: int) -> None:
        """Remove the chunks of a body whose message was not committed.  Raises OSError."""
        self._session.call(_discard, number)


@implementer(IFiledContent)
@dataclass(frozen=True, slots=True)
class UploadedContent:
    """Large content in a file of ours, or by now in chunks.

    Others find the file by its `names` until the chunks are written.
    """

    arrived: IFiledContent
    stored: IContent
    size: int
    is_ascii: bool

    @property
    def names(self) -> Sequence[Path]:
        """See `IFiledContent.names`."""
        return self.arrived.names

    async def header(self) -> bytes:
        """See `IContent.header`."""
        return await self.arrived.header()

    async def body(self) -> AsyncIterator[bytes]:
        """See `IContent.body`."""
        has_begun = False
        try:
            async for piece in self.arrived.body():
                has_begun = True
                yield piece
        except FileNotFoundError:
            if has_begun:
                raise
            async for piece in self.stored.body():
                yield piece

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent.pieces`."""
        yield await self.header()
        async for piece in self.body():
            yield piece


class ChunkedDraft(Draft):
    """A draft whose large body ends in the database."""

    def __init__(
        self,
        number: int,
        folder: Folder,
        arriving: set[int],
        source: PostgresContent,
        uploads: Uploads,
    ) -> None:
        super().__init__(number, folder, uploads.owner, source.in_thread, arriving)
        self._source = source
        self._uploads = uploads
        self._is_uploaded = False

    async def arrived(self, header: bytes) -> IContent:
        """See `Draft.arrived`."""
        content = await super().arrived(header)
        if not isinstance(content, ArrivedContent):
            return content
        key = ContentKey(self.number, content.size, content.is_ascii, in_file=True)
        stored = self._source.content(key)
        return UploadedContent(content, stored, content.size, content.is_ascii)

    def _seal(self) -> None:
        with self._lock:
            self._close()
            self._uploads.store(self.number, self._incoming)
            self._is_uploaded = True

    def _remove(self) -> None:
        super()._remove()
        if self._is_uploaded:
            self._uploads.discard(self.number)


@implementer(IDrafts)
@dataclass(frozen=True, slots=True)
class ChunkedDrafts:
    """Makes drafts in a folder of this node."""

    folder: Folder
    source: PostgresContent
    uploads: Uploads

    def begin(self, number: int, arriving: set[int]) -> Draft:
        """See `IDrafts.begin`."""
        return ChunkedDraft(number, self.folder, arriving, self.source, self.uploads)


def _begin(connection: Connection, number: int, owner: int) -> None:
    connection.execute("INSERT INTO upload VALUES (%s, %s) ON CONFLICT DO NOTHING", (number, owner))


def _append(connection: Connection, number: int, place: int, piece: bytes) -> None:
    connection.execute(
        "INSERT INTO chunk VALUES (%s, %s, %b) ON CONFLICT DO NOTHING", (number, place, piece)
    )


def _discard(connection: Connection, number: int) -> None:
    """Remove the chunks of a draft, but not those of a message."""
    connection.execute(
        """
        WITH ended AS (DELETE FROM upload WHERE message = %s RETURNING message)
        DELETE FROM chunk USING ended WHERE chunk.message = ended.message
        """,
        (number,),
    )


def _chunk_count(connection: Connection, number: int) -> int:
    row = connection.execute("SELECT count(*) FROM chunk WHERE message = %s", (number,)).fetchone()
    return int(row[0]) if row else 0


def _chunk(connection: Connection, number: int, place: int) -> bytes | None:
    cursor = connection.cursor(binary=True)
    cursor.execute("SELECT data FROM chunk WHERE message = %s AND number = %s", (number, place))
    row = cursor.fetchone()
    return row[0] if row else None
