"""What became of the exchanges with each peer: one small file a peer, for people to look at.

Losing it loses no mail, so it is replaced whole and never synced.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FOLDER = "peers"  # in the spool


@dataclass(frozen=True, slots=True)
class Record:
    """The last exchange with a peer; times in seconds since the epoch, None: never.

    `link_since`: since when a turned connection stands.
    """

    name: str
    link_since: float | None = None
    last_exchange: float | None = None
    last_error: str = ""
    sent: int = 0
    received: int = 0


class Records:
    """The records in a spool folder.  All methods block; OSError passes."""

    def __init__(self, spool: Path) -> None:
        self._folder = spool / FOLDER

    def read(self, name: str) -> Record:
        """The record of a peer, an empty one where there is none."""
        try:
            return Record(**json.loads(self._path(name).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return Record(name)

    def update(self, name: str, **changes: Any) -> None:
        """Replace some values of a record."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._path(name)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(replace(self.read(name), **changes))))
        fresh.replace(path)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name.encode().hex()}.json"
