"""The receive buffer: octets in, lines and pieces of content out.  RFC 5321 section 4.5.3.1.

Memory stays bounded whatever the peer sends: an overlong line is thrown away as it
arrives, and the channel stops reading while much is unread.
"""

from __future__ import annotations

from mta.smtp.errors import PeerFault

CRLF = b"\r\n"
LF = b"\n"


class LineTooLong(PeerFault):
    """A line that was longer than its limit.  It has been read to its end and dropped."""


class Wire:
    """The octets that have arrived and are not yet read."""

    __slots__ = ("_buffer", "_overlong", "_position")

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0
        self._overlong = False

    def __len__(self) -> int:
        """The number of unread octets."""
        return len(self._buffer) - self._position

    def feed(self, data: bytes) -> int:
        """Append what arrived; returns how many octets are now unread."""
        unread = self._buffer[self._position :]
        self._buffer = unread + data if unread else data
        self._position = 0
        return len(self._buffer)

    def line(self, limit: int, line_end: bytes = CRLF) -> bytes | None:
        """The next line without its end; None until it is complete.

        `limit`: octets, the line end included.  Raises LineTooLong at the end of a longer line.
        """
        end = self._buffer.find(line_end, self._position)
        if end < 0:
            if len(self) > limit:
                self._overlong = True
                self._position = len(self._buffer) - self._buffer.endswith(b"\r")
            return None
        line = self._buffer[self._position : end]
        self._position = end + len(line_end)
        if self._overlong or len(line) + len(line_end) > limit:
            self._overlong = False
            raise LineTooLong("line too long")
        return line

    @property
    def first(self) -> bytes:
        """The next unread octet; empty when there is none."""
        return self._buffer[self._position : self._position + 1]

    def take(self, most: int | None = None) -> bytes:
        """Take at most `most` unread octets, or all.  Empty where there are none."""
        end = len(self._buffer) if most is None else self._position + most
        piece = self._buffer[self._position : end]
        self._position += len(piece)
        return piece

    def put_back(self, data: bytes) -> None:
        """Make octets that were taken unread again."""
        self._buffer = data + self._buffer[self._position :]
        self._position = 0

    def drop(self) -> None:
        """Forget all that is unread."""
        self._buffer = b""
        self._position = 0
        self._overlong = False
