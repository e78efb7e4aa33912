"""Message content on the wire: dot transparency and line ends.  RFC 5321 section 4.5.2.

The codecs keep their place between pieces, so content may be cut anywhere.  All work is
done on whole pieces, never line by line.
"""

from __future__ import annotations

from io import IncrementalNewlineDecoder

END = b"\r\n.\r\n"


class DotReader:
    """Takes content as DATA sends it, to its end.  Removes the dot stuffing.

    Only CRLF "." CRLF ends content: other servers have been made to see an end where we
    saw none, and the other way round, by bare CR or LF (SMTP smuggling).
    """

    __slots__ = ("_held", "_virtual", "ended")

    def __init__(self) -> None:
        self._held = b"\r\n"  # content begins at the start of a line
        self._virtual = 2  # octets of `_held` that never came
        self.ended = False

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """The content in `data`, and what follows the end of content.

        A CRLF is never cut in two between the pieces of content that are returned.
        """
        chunk = self._held + data
        dot = chunk.find(b"\r\n.")  # rare: most pieces are looked through only once
        end = chunk.find(END, dot) if dot >= 0 else -1
        if end >= 0:
            self.ended = True
            piece, rest = chunk[: end + 2], chunk[end + len(END) :]
        else:
            keep = next((n for n in (4, 3, 2, 1) if chunk.endswith(END[:n])), 0)
            cut = len(chunk) - keep
            piece, rest = chunk[:cut], b""
            self._held = chunk[cut:]
        virtual = min(self._virtual, len(piece))
        self._virtual -= virtual
        if dot >= 0:
            piece = piece.replace(b"\r\n.", b"\r\n")
        return piece[virtual:], rest


class DotWriter:
    """Prepares content for DATA: stuffs dots and ends it."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def encode(self, piece: bytes) -> bytes:
        """The piece as it goes over the wire."""
        tail = self._tail
        whole = tail + piece
        self._tail = whole[-2:]
        return whole.replace(b"\r\n.", b"\r\n..")[len(tail) :]

    def end(self) -> bytes:
        """The end of content; a missing last line end is added."""
        return b".\r\n" if self._tail == b"\r\n" else END


class LineCheck:
    """Watches content for a bare CR, a bare LF or a NUL.

    Such content may not be passed on: some next hop would take a bare line end for a real
    one, and with it find another end of content than we did (RFC 5321 section 4.1.1.4).
    """

    __slots__ = ("_line_ends", "_nul")

    def __init__(self) -> None:
        self._line_ends = IncrementalNewlineDecoder(None, translate=False)
        self._nul = False

    def feed(self, piece: bytes) -> None:
        """Look at the next piece."""
        self._line_ends.decode(piece.decode("latin-1"))
        self._nul = self._nul or b"\0" in piece

    def end(self) -> None:
        """End the content.  A CR at its very end stayed bare."""
        self._line_ends.decode("", final=True)

    @property
    def broken(self) -> bool:
        """Tell whether there was one so far."""
        return self._nul or self._line_ends.newlines not in (None, "\r\n")
