"""The records of keys, compared with the keys."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from mta.authentication.dkim.algorithms import Algorithm, public_key
from mta.authentication.dkim.key_record import KeyRecord
from mta.authentication.dkim.result import Unverified
from mta.signing.keys import PrivateKey


class Presence(Enum):
    """The state of a key's record in the DNS."""

    PRESENT = "yes"
    MISSING = "no"
    DIFFERENT = "differs"
    UNKNOWN = "unknown"


def presence(key: PrivateKey, texts: Sequence[bytes]) -> Presence:
    """Compare the TXT records at a key's name with the key."""
    if not texts:
        return Presence.MISSING
    # Of several, a verifier takes any one (RFC 6376 section 3.6.2.2).
    is_right = all(_is_of(key, text) for text in texts)
    return Presence.PRESENT if is_right else Presence.DIFFERENT


def _is_of(key: PrivateKey, text: bytes) -> bool:
    """Tell whether this is the record of a key, to a verifier."""
    algorithm = Algorithm(key.algorithm)
    try:
        found = KeyRecord.parse(text)
        found.ensure_usable(algorithm)
        return public_key(algorithm, found.key) == key.key.public_key()
    except (ValueError, Unverified):
        return False
