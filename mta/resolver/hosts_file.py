"""Addresses that the system knows without asking, see hosts(5)."""

from __future__ import annotations

from pathlib import Path

from twisted.names.hosts import searchFileForAll

LOCALHOST = ["::1", "127.0.0.1"]  # RFC 6761 section 6.3


class HostsFile:
    """The hosts file; it is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = 0
        self._content = b""

    def addresses(self, name: bytes) -> list[str]:
        """The addresses of a host, if the file names it."""
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._changed:
                self._content = self._path.read_bytes().lower()
                self._changed = changed
        except OSError:
            self._content, self._changed = b"", 0
        # The search looks at each line of a file that may be long.
        found = searchFileForAll(self, name) if name in self._content else []
        if not found and (name == b"localhost" or name.endswith(b".localhost")):
            return list(LOCALHOST)
        return list(dict.fromkeys(found))

    def getContent(self) -> bytes:
        """The octets of the file; Twisted's search calls this."""
        return self._content
