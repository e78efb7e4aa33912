"""The files by which processes find the links of peers.

For each peer that is asked about its mailboxes, or has mail passed through, a symbolic link in the
spool names the socket of the process where its newest link stands.  Beside that one, which takes
questions (`mta.peers.question_socket`), there may be one for mail (`mta.peers.borrower`).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

from mta.peers.status_files import FOLDER

SUFFIX = ".asked"  # of a peer's
SOCKET_SUFFIX = ".questions"  # of a process's
BORROWER_SUFFIX = ".mail"  # of its other one


class Announcements:
    """The links that this process has."""

    log = Logger()

    def __init__(self, spool: Path) -> None:
        self._folder = spool / FOLDER
        self.socket = self._folder / f"{os.getpid()}{SOCKET_SUFFIX}"

    @property
    def borrower(self) -> Path:
        """The socket of this process for mail of others."""
        return self.socket.with_suffix(BORROWER_SUFFIX)

    def begin(self, peer: str) -> None:
        """Say that the newest link of a peer is here."""
        new = self._folder / f"{self.socket.name}.{peer}"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            new.unlink(missing_ok=True)
            new.symlink_to(self.socket.name)
            new.replace(self._path(peer))
        except OSError as error:
            self.log.warn("the link of {peer}: {error}", peer=peer, error=str(error))

    def end(self, peer: str) -> None:
        """Say that none is here."""
        with suppress(OSError):
            if self.find(peer) == self.socket:
                self._path(peer).unlink()

    def find(self, peer: str) -> Path | None:
        """The socket of the process with a peer's link, if any."""
        try:
            return self._folder / self._path(peer).readlink()
        except OSError:
            return None

    def find_borrower(self, peer: str) -> Path | None:
        """The socket for mail where another process has a peer's link."""
        socket = self.find(peer)
        if socket is None or socket == self.socket:
            return None
        return socket.with_suffix(BORROWER_SUFFIX)

    def remove_stale(self, socket: Path) -> None:
        """Make room for a socket of ours.  Raises OSError.

        Those of its kind go whose processes died.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for path in self._folder.glob(f"*{socket.suffix}"):
            if path == socket or not _is_alive(path.stem):
                path.unlink(missing_ok=True)

    def _path(self, peer: str) -> Path:
        return self._folder / f"{peer}{SUFFIX}"


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError):
        pass  # it is another user's, or no process
    return True
