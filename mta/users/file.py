"""The users file: YAML, mode 0600, written by ``mta user``.

It holds no password that can be read back, but for users who want CRAM-MD5, which can't do
without (RFC 2195).  Everything here blocks.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import yaml

from mta.files import atomic_write
from mta.smtp import sasl
from mta.smtp.sasl import ScramKeys
from mta.smtp.saslprep import prepare
from mta.users.addresses import normalised

SALT_SIZE = 16  # octets
HASH_SIZE = 32  # octets
MAX_MEMORY = 2**26  # octets that one scrypt hash may take

_SCRYPT = re.compile(r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,2}),p=([0-9]{1,2})\$([^$]+)\$([^$]+)")
_SCRAM = re.compile(r"SCRAM-SHA-256\$([0-9]{1,7}):([^$:]+)\$([^$:]+):([^$:]+)")
_HEADING = "# Written by `mta user`.  Keep it secret: mode 0600.\n"


class UserFault(Exception):
    """Something about users that a person must put right: one line."""


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """The scrypt hash of a password (RFC 7914).  `cost` is the logarithm of N."""

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
        """Return whether this is the hash of a prepared password.  Tens of milliseconds."""
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
class User:
    """One user.

    `addresses` as in `mta.users.addresses`.  `cram_md5` is a plain secret, empty for most users.
    `scram` None: the user has no keys for SCRAM.
    """

    name: str
    password: PasswordHash
    scram: ScramKeys | None
    addresses: tuple[str, ...] = ()
    cram_md5: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Roster:
    """All users by name in lower case.  Names that differ in case only are one name.

    `decoy` is the key of the answers that users get who do not exist.
    """

    users: Mapping[str, User] = field(default_factory=dict)
    decoy: bytes = field(default=b"", repr=False)

    def find(self, name: str) -> User | None:
        """The user of that prepared name."""
        return self.users.get(name.lower())

    def scram_keys(self, name: str) -> ScramKeys:
        """Return the keys of a user.

        For an unknown name they are the same each time, and no password fits them.
        """
        user = self.find(name)
        if user is not None and user.scram is not None:
            return user.scram
        salt, stored_key, server_key = (
            hmac.digest(self.decoy, f"{part} {name.lower()}".encode(), "sha256")
            for part in ("salt", "stored key", "server key")
        )
        return ScramKeys(salt[:SALT_SIZE], self._decoy_iterations(name), stored_key, server_key)

    def _decoy_iterations(self, name: str) -> int:
        """Return the rounds of some user.  Older keys have fewer rounds than new ones."""
        counts = sorted(user.scram.iterations for user in self.users.values() if user.scram)
        chosen = hmac.digest(self.decoy, f"iterations {name.lower()}".encode(), "sha256")
        return counts[int.from_bytes(chosen) % len(counts)] if counts else sasl.ITERATIONS


Stamp = tuple[int, int, int] | None


class UserFile:
    """The users file at `path`.  Every method raises UserFault.

    `owner`: the user and group whose it is to be when it is written; None: as it was.  `scram`:
    whether users get keys for SCRAM.
    """

    def __init__(
        self, path: Path, owner: tuple[int, int] | None = None, *, scram: bool = True
    ) -> None:
        self.path = path
        self.scram = scram
        self._owner = owner

    def stamp(self) -> Stamp:
        """Return a value that differs when the file was written anew.  None: there is no file."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._fault(error) from None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def load(self) -> Roster:
        """Return everything in the file.  Where there is no file, there are no users."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return Roster(decoy=secrets.token_bytes(HASH_SIZE))
        except OSError as error:
            raise self._fault(error) from None
        try:
            return _roster(yaml.load(text, Loader=_Loader))  # noqa: S506 (it is a safe one)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            raise UserFault(f"{self.path}{place}: this is not YAML") from None
        except ValueError as error:
            raise UserFault(f"{self.path}: {error}") from None

    def add(
        self,
        name: str,
        password: str,
        addresses: Sequence[str] = (),
        *,
        cram_md5: bool = False,
    ) -> None:
        """Add a user; `cram_md5` keeps the password itself, for CRAM-MD5."""
        own = tuple(_told(normalised, address) for address in addresses)
        user = self._user(_told(prepare, name), password, cram_md5=cram_md5)
        with self._changing() as users:
            if user.name.lower() in users:
                raise UserFault(f"there is already a user {user.name}")
            users[user.name.lower()] = replace(user, addresses=own)

    def set_password(self, name: str, password: str) -> None:
        """Give a user a new password."""
        with self._changing() as users:
            old = self._existing(users, name)
            new = self._user(old.name, password, cram_md5=bool(old.cram_md5))
            users[old.name.lower()] = replace(new, addresses=old.addresses)

    def is_outdated(self, user: User) -> bool:
        """Return whether a password would get other hashes today."""
        iterations = user.scram.iterations if user.scram else 0
        return iterations < sasl.ITERATIONS if self.scram else user.scram is not None

    def renew(self, user: User, password: str) -> None:
        """Hash a prepared password anew, if it is still the user's."""
        keys = self._keys(password)
        with self._changing() as users:
            now = users.get(user.name.lower())
            if now is not None and now.password == user.password:
                users[user.name.lower()] = replace(now, scram=keys)

    def delete(self, name: str) -> None:
        """Remove a user."""
        with self._changing() as users:
            del users[self._existing(users, name).name.lower()]

    def list(self) -> Sequence[User]:
        """All users by name."""
        users = self.load().users
        return [users[name] for name in sorted(users)]

    def check(self, name: str, password: str) -> bool:
        """Return whether that is the user's password."""
        user = self._existing(self.load().users, name)
        return user.password.matches(_told(prepare, password))

    def _user(self, name: str, password: str, *, cram_md5: bool) -> User:
        prepared = _told(prepare, password)
        secret = password if cram_md5 else ""
        return User(name, PasswordHash.of(prepared), self._keys(prepared), (), secret)

    def _keys(self, password: str) -> ScramKeys | None:
        if not self.scram:
            return None
        return sasl.scram_keys(password, secrets.token_bytes(SALT_SIZE), sasl.ITERATIONS)

    def _existing(self, users: Mapping[str, User], name: str) -> User:
        user = users.get(_told(prepare, name).lower())
        if user is None:
            raise UserFault(f"there is no user {name}")
        return user

    @contextmanager
    def _changing(self) -> Iterator[dict[str, User]]:
        """The users, to be changed; written back at the end.  One process at a time."""
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self._fault(error) from None
        try:
            flock(folder, LOCK_EX)
            roster = self.load()
            users = dict(roster.users)
            yield users
            atomic_write(self.path, _text(Roster(users, roster.decoy)), owner=self._owner)
        except OSError as error:
            raise self._fault(error) from None
        finally:
            os.close(folder)

    def _fault(self, error: OSError) -> UserFault:
        return UserFault(f"{error.filename or self.path}: {error.strerror}")


def _told(check: Any, text: str) -> str:
    """Return what `check` makes of a text.

    Its ValueError becomes a fault that a person is told.
    """
    try:
        return check(text)  # type: ignore[no-any-return]
    except ValueError as error:
        raise UserFault(f"a name, password or address: {error}") from None


# --- YAML -----------------------------------------------------------------------

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _text(roster: Roster) -> bytes:
    users = {user.name: _entry(user) for user in roster.users.values()}
    document = {"decoy": _base64(roster.decoy), "users": users}
    return (_HEADING + yaml.safe_dump(document, allow_unicode=True, width=1000)).encode()


def _entry(user: User) -> dict[str, Any]:
    password, scram = user.password, user.scram
    costs = f"ln={password.cost},r={password.block_size},p={password.parallel}"
    entry: dict[str, Any] = {
        "password": f"$scrypt${costs}${_base64(password.salt)}${_base64(password.digest)}",
        "addresses": list(user.addresses),
    }
    if scram is not None:  # in the form of RFC 5803
        entry["scram"] = (
            f"SCRAM-SHA-256${scram.iterations}:{_base64(scram.salt)}"
            f"${_base64(scram.stored_key)}:{_base64(scram.server_key)}"
        )
    if user.cram_md5:
        entry["cram_md5"] = user.cram_md5
    return entry


def _roster(document: object) -> Roster:
    """Raises ValueError with words for a person."""
    if not isinstance(document, dict) or not isinstance(document.get("users"), dict):
        raise ValueError("no users: expected what `mta user add` writes")
    users = [_user(name, entry) for name, entry in document["users"].items()]
    by_name = {user.name.lower(): user for user in users}
    if len(by_name) < len(users):
        raise ValueError("two users have the same name")
    return Roster(by_name, _octets(document.get("decoy")))


def _user(name: object, entry: object) -> User:
    try:
        if not isinstance(entry, dict):
            raise ValueError
        password = _SCRYPT.fullmatch(entry["password"])
        scram = _SCRAM.fullmatch(entry["scram"]) if "scram" in entry else None
        addresses = entry.get("addresses", [])
        has_bad_keys = "scram" in entry and not scram
        if not password or has_bad_keys or not isinstance(addresses, list):
            raise ValueError
        costs = (int(number) for number in password.group(1, 2, 3))
        return User(
            prepare(str(name)),
            PasswordHash(_octets(password[4]), _octets(password[5]), *costs),
            _scram_keys(scram) if scram else None,
            tuple(normalised(str(address)) for address in addresses),
            str(entry.get("cram_md5", "")),
        )
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"user {name}: expected what `mta user add` writes") from None


def _scram_keys(found: re.Match[str]) -> ScramKeys:
    iterations, *texts = found.groups()
    salt, stored_key, server_key = map(_octets, texts)
    return ScramKeys(salt, int(iterations), stored_key, server_key)


def _base64(octets: bytes) -> str:
    return b64encode(octets).decode("ascii")


def _octets(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("expected base64")
    return b64decode(text, validate=True)
