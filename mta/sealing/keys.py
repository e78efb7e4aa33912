"""The keys of sealed mail, as the files of age have them.

The private key, ``AGE-SECRET-KEY-1...``, is in a file of the office, the public one, ``age1...``,
in a file of the relay.  Each line has one; empty lines and those with ``#`` do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mta.files import open_regular
from mta.sealing import bech32

MAX_FILE = 64 * 1024  # octets: far more than the keys of a rotation take
MAX_KEYS = 20  # in one file: each takes some time for each message
K = TypeVar("K")

_PUBLIC, _PRIVATE = "age", "age-secret-key-"


class SealKeyFault(Exception):
    """A file of keys can't be used, in one line for people."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that mail is sealed to."""

    octets: bytes

    def __str__(self) -> str:
        return bech32.encoded(_PUBLIC, self.octets)

    @classmethod
    def read(cls, text: str) -> PublicKey:
        """The key in a line.  Raises ValueError."""
        octets = bech32.decoded(_PUBLIC, text)
        X25519PublicKey.from_public_bytes(octets)
        return cls(octets)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that opens what was sealed to its public one."""

    octets: bytes = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """The key to seal to."""
        key = X25519PrivateKey.from_private_bytes(self.octets)
        return PublicKey(key.public_key().public_bytes_raw())

    @property
    def text(self) -> str:
        """The secret as a line of a file."""
        return bech32.encoded(_PRIVATE, self.octets).upper()

    @classmethod
    def new(cls) -> PrivateKey:
        """Make a key."""
        return cls(X25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def read(cls, text: str) -> PrivateKey:
        """The key in a line.  Raises ValueError."""
        octets = bech32.decoded(_PRIVATE, text)
        X25519PrivateKey.from_private_bytes(octets)
        return cls(octets)


def public_keys(path: Path) -> Sequence[PublicKey]:
    """The keys of a file, at least one.  Raises SealKeyFault."""
    return _keys(path, PublicKey.read, "a public key, age1...")


def private_keys(path: Path) -> Sequence[PrivateKey]:
    """The keys of a file, at least one.  Raises SealKeyFault."""
    return _keys(path, PrivateKey.read, "a private key, AGE-SECRET-KEY-1...")


def _keys(path: Path, read: Callable[[str], K], expected: str) -> Sequence[K]:
    try:
        with open_regular(path) as file:
            text = file.read(MAX_FILE + 1).decode("ascii", "replace")
    except OSError as error:
        raise SealKeyFault(f"{path}: {error.strerror or error}") from None
    found = []
    for number, line in _lines(text):
        try:
            found.append(read(line))
        except ValueError as error:  # the line may be a secret: it is not shown
            raise SealKeyFault(f"{path}:{number}: {error}, expected {expected}") from None
    if len(text) > MAX_FILE:
        raise SealKeyFault(f"{path}: more than {MAX_FILE} octets, expected a file of keys")
    if not 0 < len(found) <= MAX_KEYS:
        raise SealKeyFault(f"{path}: {len(found)} keys, expected 1 to {MAX_KEYS}")
    return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if (stripped := line.strip()) and not stripped.startswith("#"):
            yield number, stripped
