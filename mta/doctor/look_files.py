"""The last look of each peer at us, in files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mta.files import atomic_write
from mta.session import Observation
from mta.smtp.far_look import MAX_DOCUMENT, bounded

FOLDER = "looks"  # in the spool


@dataclass(frozen=True, slots=True)
class Look:
    """The observations of a peer, told at a time.

    It is in seconds since the epoch."""

    at: float
    observations: Sequence[Observation]


class LookFiles:
    """The files in a spool folder, one for each peer.  All methods block."""

    def __init__(self, spool: Path, now: Callable[[], float] = time.time) -> None:
        self._folder = spool / FOLDER
        self._now = now

    def keep(self, peer: str, observations: Sequence[Observation]) -> None:
        """Keep the last look of a peer.  Raises OSError."""
        pairs = [(each.state, each.text) for each in observations]
        document = json.dumps({"at": self._now(), "seen": pairs}).encode()
        self._folder.mkdir(0o700, exist_ok=True)
        atomic_write(self._path(peer), document, durable=False)

    def read(self, peer: str) -> Look | None:
        """The last look of a peer; None: there was none.  Raises OSError."""
        try:
            descriptor = os.open(self._path(peer), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            octets = file.read(2 * MAX_DOCUMENT)
        try:
            document = json.loads(octets)
            seen = [Observation(state, text) for state, text in document["seen"]]
            return Look(float(document["at"]), bounded(seen))
        except (ValueError, TypeError, KeyError):
            return None

    def forget(self, peer: str) -> None:
        """Remove the look of a peer.  Raises OSError."""
        self._path(peer).unlink(missing_ok=True)

    def _path(self, peer: str) -> Path:
        return self._folder / f"{peer}.json"
