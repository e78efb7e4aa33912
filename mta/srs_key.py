"""The secret that signs the reverse-paths of forwarded mail (SRS).

It is a file in the folder of the spool, so that all processes there have the same one.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from mta.files import atomic_write

NAME = "srs.key"
LENGTH = 32  # octets: as many as the digest of HMAC-SHA-256 has


def srs_key(spool: Path) -> bytes:
    """Read the secret, which is made on first use.  Raises OSError."""
    path = spool / NAME
    if not path.exists():
        atomic_write(path, secrets.token_bytes(LENGTH), overwrite=False)
    return path.read_bytes()
