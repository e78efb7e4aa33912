"""The secret that signs the reverse-paths of forwarded mail (SRS).

It is a file in the folder of the spool, so that all processes there have the same one.  Nodes that
share a spool tell it each other through their shared tables.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from mta.files import atomic_write
from mta.shared_tables.copies import first_told
from mta.shared_tables.interfaces import ITableStore

NAME = "srs.key"
LENGTH = 32  # octets: as many as the digest of HMAC-SHA-256 has


def srs_key(spool: Path) -> bytes:
    """Read the secret, which is made on first use.  Raises OSError."""
    path = spool / NAME
    if not path.exists():
        atomic_write(path, secrets.token_bytes(LENGTH), overwrite=False)
    return path.read_bytes()


def agreed_srs_key(spool: Path, store: ITableStore) -> tuple[bytes, str]:
    """The secret of all nodes, and what is wrong with ours.

    The first node tells it; one that is here already stays.  Nothing is wrong where the second
    value is empty.  Raises OSError.
    """
    is_new = not (spool / NAME).exists()
    ours = srs_key(spool)
    try:
        theirs = first_told(store, "key", NAME, ours)
    except OSError as error:
        return ours, f"whether other nodes have the same one is unknown: {error}"
    if theirs == ours:
        return ours, ""
    if is_new:
        atomic_write(spool / NAME, theirs)
        return theirs, ""
    return ours, "the other nodes have another one: copy one of them to all, and restart them"
