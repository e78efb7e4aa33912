"""The record of the files that ``mta init`` wrote, by their digests.

A file that still is as it was written may be replaced by a newer form of it.  Any other is a
person's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from mta.files import atomic_write

FILE = "installed.json"  # in the folder of the configuration


@dataclass(frozen=True, slots=True)
class Record:
    """The record in a file, which is made with the first entry."""

    path: Path
    owner: tuple[int, int] | None = None

    def has(self, path: Path, octets: bytes) -> bool:
        """Tell whether a file had that content when it was written."""
        return _digest(octets) in self._load().get(str(path), [])

    def knows(self, path: Path) -> bool:
        """Tell whether a file was ever written."""
        return str(path) in self._load()

    def add(self, path: Path, octets: bytes) -> None:
        """Note the content that a file is about to have.  Raises OSError."""
        known = self._load()
        digests = known.setdefault(str(path), [])
        if _digest(octets) not in digests:
            digests.append(_digest(octets))
            text = json.dumps(known, indent=1, sort_keys=True) + "\n"
            atomic_write(self.path, text.encode(), 0o644, owner=self.owner)

    def _load(self) -> dict[str, list[str]]:
        try:
            known = json.loads(self.path.read_text("utf-8"))
        except (FileNotFoundError, ValueError):  # damaged: every file is a person's, then
            return {}
        return known if isinstance(known, dict) else {}


def _digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()
