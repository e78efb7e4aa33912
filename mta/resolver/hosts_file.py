"""Addresses that the system knows without asking, see hosts(5)."""

from __future__ import annotations

from pathlib import Path

from twisted.names.hosts import searchFileForAll

from mta.files import in_words
from mta.interfaces import ResolutionFailed

LOCALHOST = ["::1", "127.0.0.1"]  # RFC 6761 section 6.3


class HostsFile:
    """The hosts file; it is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = 0
        self._content: bytes | None = None  # None: it was never read

    def addresses(self, name: bytes) -> list[str]:
        """The addresses of a host, if the file names it.

        While it can't be read, it is what it was.  Raises ResolutionFailed where that is unknown:
        a name that it has may exist nowhere else.
        """
        self._refresh()
        # The search looks at each line of a file that may be long.
        found = searchFileForAll(self, name) if name in self.getContent() else []
        if not found and (name == b"localhost" or name.endswith(b".localhost")):
            return list(LOCALHOST)
        return list(dict.fromkeys(found))

    def _refresh(self) -> None:
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._changed:
                self._content = self._path.read_bytes().lower()
                self._changed = changed
        except (FileNotFoundError, PermissionError):
            self._content, self._changed = b"", 0
        except OSError as error:
            self._changed = 0
            if self._content is None:
                raise ResolutionFailed(in_words(error)) from None

    def getContent(self) -> bytes:
        """The octets of the file; Twisted's search calls this."""
        return self._content or b""
