"""The form of the users file: YAML with hashes, and back."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import asdict
from typing import Any

import yaml

from mta.settings import Account, UserLimits
from mta.smtp.sasl import ScramKeys
from mta.smtp.saslprep import prepare
from mta.users.addresses import normalised
from mta.users.roster import PasswordHash, Roster, User

HEADING = "# Written by `mta user`.  Keep it secret: mode 0600.\n"

_SCRYPT = re.compile(r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,2}),p=([0-9]{1,2})\$([^$]+)\$([^$]+)")
_SCRAM = re.compile(r"SCRAM-SHA-256\$([0-9]{1,7}):([^$:]+)\$([^$:]+):([^$:]+)")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(text: bytes) -> Roster:
    """Read the text of a users file.

    Raises ValueError with words for a person, or YAMLError.
    """
    return _roster(yaml.load(text, Loader=_Loader))  # noqa: S506 (it is a safe one)


def written(roster: Roster) -> bytes:
    """The text of a users file."""
    users = {user.name: entry_of(user) for user in roster.users.values()}
    document = {"decoy": _base64(roster.decoy), "users": users}
    return (HEADING + yaml.safe_dump(document, allow_unicode=True, width=1000)).encode()


def entry_of(user: User) -> dict[str, Any]:
    """The entry of a user."""
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
    if user.account.is_suspended:
        entry["suspended"] = True
    if limits := {
        key: each for key, each in asdict(user.account.limits).items() if each is not None
    }:
        entry["limits"] = limits
    return entry


def _roster(document: object) -> Roster:
    """The users in a parsed file.  Raises ValueError with words for a person."""
    if not isinstance(document, dict) or not isinstance(document.get("users"), dict):
        raise ValueError("no users: expected what `mta user add` writes")
    users = [user_of(name, entry) for name, entry in document["users"].items()]
    by_name = {user.name.lower(): user for user in users}
    if len(by_name) < len(users):
        raise ValueError("two users have the same name")
    return Roster(by_name, _octets(document.get("decoy")))


def user_of(name: object, entry: object) -> User:
    """The user of an entry.  Raises ValueError with words for a person."""
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
            _account(entry),
        )
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"user {name}: expected what `mta user add` writes") from None


def _account(entry: dict[str, Any]) -> Account:
    is_suspended, limits = entry.get("suspended", False), entry.get("limits", {})
    numbers = limits.values() if isinstance(limits, dict) else [None]
    if not isinstance(is_suspended, bool) or any(
        type(each) is not int or each < 0 for each in numbers
    ):
        raise ValueError
    return Account(is_suspended, UserLimits(**limits))


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
