"""The status of each peer, in small files in the spool.

It is for users to look at: what became of the exchanges.  Losing one loses no mail, so they are
replaced whole and never synced.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from mta.files import atomic_write, create, give_to_folder_owner

FOLDER = "peers"


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """The last exchange with a peer.  Times are in seconds since the epoch, None: never.

    `sent` and `received` count its messages; `last_error` is empty where it went well, and is of
    the time `error_at`.  `failing_since`: when exchanges began to fail, and `next_try` when the
    next one is due then.
    """

    last_exchange: float | None = None
    last_error: str = ""
    sent: int = 0
    received: int = 0
    error_at: float | None = None
    failing_since: float | None = None
    next_try: float | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> PeerStatus:
        """The status with these values, of another version perhaps.  Raises TypeError."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


class PeerStatusFiles:
    """The files in a spool folder.  All methods block.  `now`: seconds since the epoch."""

    def __init__(self, spool: Path, now: Callable[[], float] = time.time) -> None:
        self._folder = spool / FOLDER
        self._now = now

    def read(self, peer: str) -> PeerStatus:
        """The status of a peer, an empty one where there is none.  Raises OSError."""
        try:
            return PeerStatus.of(json.loads(self._path(peer).read_text()))
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return PeerStatus()

    def link_since(self, peer: str) -> float | None:
        """The time since which a turned connection stands; None: none does.

        In seconds since the epoch.  Raises OSError.
        """
        try:
            descriptor = os.open(self._mark(peer), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
        return None

    def update(self, peer: str, **changes: Any) -> None:
        """Replace some values of a status.  Raises OSError."""
        self._make_folder()
        path = self._path(peer)
        status = self.read(peer)
        if "last_error" in changes:
            now = self._now() if changes["last_error"] else None
            times = {"error_at": now, "failing_since": now and (status.failing_since or now)}
            changes = {**times, "next_try": None, **changes}
        status = replace(status, **changes)
        atomic_write(path, json.dumps(asdict(status)).encode(), durable=False)

    def mark_link(self, peer: str) -> int:
        """Mark that a turned connection stands, until the descriptor is closed.

        That ends with the process at the latest, however it ends.  Raises OSError.
        """
        self._make_folder()
        descriptor = create(self._mark(peer), os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(descriptor)
        return descriptor

    def _make_folder(self) -> None:
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            give_to_folder_owner(self._folder)

    def _path(self, peer: str) -> Path:
        return self._folder / f"{peer}.json"

    def _mark(self, peer: str) -> Path:
        return self._folder / f"{peer}.link"
