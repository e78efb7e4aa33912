"""Key files that know their dates, which a rotation goes by.

The dates stand in front of the PEM block, where readers of keys pass over text (RFC 7468 section
2).  So they go wherever the key goes, and no other file can be at odds with it.
"""

from __future__ import annotations

import re
import stat
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mta.files import atomic_write
from mta.signing.keys import KeyFault, PrivateKey, octets_of

_CREATED, _RETIRED = "Created", "Retired"
_DATE = re.compile(rb"^(Created|Retired): (\S+)[ \t]*\r?\n", re.MULTILINE)
_FORM = "%Y-%m-%dT%H:%M:%SZ"


class KeyFile:
    """The file of a key.  Raises KeyFault where it can't be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._octets = octets_of(path)
        before, dashes, block = self._octets.partition(b"-----BEGIN")
        self._rest = _DATE.sub(b"", before) + dashes + block
        self._dates = {name.decode(): _moment(text) for name, text in _DATE.findall(before)}

    @property
    def created(self) -> datetime:
        """The time that the key was made, or else its file written."""
        return self._dates.get(_CREATED) or self._written

    @property
    def retired(self) -> datetime | None:
        """The time since which it signs no more, where that is known."""
        return self._dates.get(_RETIRED)

    def retire(self, now: datetime) -> None:
        """Note that it signs no more, as of now.  Raises OSError."""
        text = _line(_CREATED, self.created) + _line(_RETIRED, now) + self._rest
        atomic_write(self.path, text, stat.S_IMODE(self.path.stat().st_mode))
        self._dates[_RETIRED] = now

    @property
    def _written(self) -> datetime:
        try:
            return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
        except OSError as error:
            raise KeyFault(f"{self.path}: {error.strerror}") from None


def write(path: Path, key: PrivateKey, now: datetime, owner: tuple[int, int] | None) -> bool:
    """Write a new key; returns False where there is a file already.  Raises OSError.

    `owner`: the user and group that root gives the file to.
    """
    pem = key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return atomic_write(path, _line(_CREATED, now) + pem, overwrite=False, owner=owner)


def _line(name: str, moment: datetime) -> bytes:
    return f"{name}: {moment.astimezone(UTC):{_FORM}}\n".encode()


def _moment(text: bytes) -> datetime | None:
    try:
        return datetime.strptime(text.decode("ascii"), _FORM).replace(tzinfo=UTC)
    except ValueError:
        return None
