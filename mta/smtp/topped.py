"""Content with fields of ours on top of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from zope.interface import implementer

from mta.queued import IContent


@implementer(IContent)
@dataclass(frozen=True, slots=True)
class ToppedContent:
    """Content with fields on top of its header section."""

    fields: bytes
    content: IContent

    @property
    def size(self) -> int:
        """See `IContent.size`."""
        return len(self.fields) + self.content.size

    @property
    def is_ascii(self) -> bool:
        """See `IContent.is_ascii`."""
        return self.fields.isascii() and self.content.is_ascii

    async def header(self) -> bytes:
        """See `IContent.header`."""
        return self.fields + await self.content.header()

    def body(self) -> AsyncIterator[bytes]:
        """See `IContent.body`."""
        return self.content.body()

    async def pieces(self) -> AsyncIterator[bytes]:
        """See `IContent.pieces`."""
        yield self.fields
        async for piece in self.content.pieces():
            yield piece
