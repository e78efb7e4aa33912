"""Names, between text and the wire (RFC 1035 section 2.3.4)."""

from __future__ import annotations

from functools import lru_cache

import idna
from dns.name import Name

from mta.interfaces import DomainNotFound

MAX_NAME = 253  # octets, RFC 1035 section 2.3.4: 255 with the lengths of labels
MAX_LABEL = 63  # octets, RFC 1035 section 2.3.4


@lru_cache(maxsize=1024)  # each message from outside asks for half a dozen, of few domains
def to_octets(name: str) -> bytes:
    """The A-labels of a name, in lower case.  Raises DomainNotFound where it can't exist."""
    name = name.rstrip(".").lower()
    try:
        octets = name.encode("ascii") if name.isascii() else idna.encode(name, uts46=True)
    except idna.IDNAError:
        raise DomainNotFound(name) from None
    labels = octets.split(b".")
    if len(octets) > MAX_NAME or not all(0 < len(label) <= MAX_LABEL for label in labels):
        raise DomainNotFound(name)
    return octets


def to_name(octets: bytes) -> Name:
    """The name of these A-labels; a backslash is no escape."""
    return Name([*octets.split(b"."), b""])


def to_text(name: Name) -> str:
    """The text of a name, empty for the root.

    Dots inside of labels and control characters are escaped: no name looks like another one.
    """
    return name.to_text(omit_final_dot=True).lower() if len(name) > 1 else ""
