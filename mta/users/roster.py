"""Users as values: names, hashes of passwords, addresses."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mta.settings import Account
from mta.smtp import sasl
from mta.smtp.sasl import ScramKeys

SALT_SIZE = 16  # octets
HASH_SIZE = 32  # octets
MAX_MEMORY = 2**26  # octets that one scrypt hash may take


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """A password as scrypt leaves it (RFC 7914).

    `cost` is the logarithm of N.
    """

    salt: bytes
    digest: bytes = field(repr=False)
    cost: int = 14
    block_size: int = 8
    parallel: int = 1

    @classmethod
    def of(cls, password: str) -> PasswordHash:
        """The hash of a prepared password, with a salt of its own.  Tens of milliseconds."""
        unset = cls(secrets.token_bytes(SALT_SIZE), b"")
        return replace(unset, digest=unset._hash(password))

    def matches(self, password: str) -> bool:
        """Tell whether this is the hash of a prepared password.  Tens of milliseconds."""
        return hmac.compare_digest(self._hash(password), self.digest)

    def _hash(self, password: str) -> bytes:
        return hashlib.scrypt(
            password.encode(),
            salt=self.salt,
            n=2**self.cost,
            r=self.block_size,
            p=self.parallel,
            maxmem=MAX_MEMORY,
            dklen=HASH_SIZE,
        )


@dataclass(frozen=True, slots=True)
class Secret:
    """A password, as hash and as keys for SCRAM.

    `scram` None: it has no such keys.
    """

    password: PasswordHash
    scram: ScramKeys | None


@dataclass(frozen=True, slots=True)
class User:
    """One user.

    `addresses` as in `mta.users.addresses`.  `account`: what it may send.  `cram_md5`: the password
    itself, empty for most.  `scram` None: the user has no keys for SCRAM.  `successor` counts as
    well, and takes the place of the password once it was used.
    """

    name: str
    password: PasswordHash
    scram: ScramKeys | None
    addresses: tuple[str, ...] = ()
    cram_md5: str = field(default="", repr=False)
    account: Account = field(default_factory=Account)
    successor: Secret | None = None


@dataclass(frozen=True, slots=True)
class Roster:
    """All users, by name in lower case.

    Names that differ in case only are one name.  `decoy` is the key of what clients are told of
    users that do not exist.
    """

    users: Mapping[str, User] = field(default_factory=dict)
    decoy: bytes = field(default=b"", repr=False)

    def find(self, name: str) -> User | None:
        """The user of that prepared name."""
        return self.users.get(name.lower())

    def scram_keys(self, name: str) -> ScramKeys:
        """A user's keys.

        For an unknown name these are the same ones each time, and no password fits.
        """
        user = self.find(name)
        if user is not None and user.scram is not None:
            new = user.successor
            return user.scram if new is None else replace(user.scram, successor=new.scram)
        salt, stored_key, server_key = (
            hmac.digest(self.decoy, f"{part} {name.lower()}".encode(), "sha256")
            for part in ("salt", "stored key", "server key")
        )
        return ScramKeys(salt[:SALT_SIZE], self._decoy_iterations(name), stored_key, server_key)

    def _decoy_iterations(self, name: str) -> int:
        """The iterations of some user: old keys have fewer than new ones."""
        counts = sorted(user.scram.iterations for user in self.users.values() if user.scram)
        chosen = hmac.digest(self.decoy, f"iterations {name.lower()}".encode(), "sha256")
        return counts[int.from_bytes(chosen) % len(counts)] if counts else sasl.ITERATIONS
