"""New keys of a domain, and their files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from mta.files import make_folder
from mta.settings import DKIMKey, KeyState
from mta.signing import key_files
from mta.signing.keys import ED25519, RSA, RSA_BITS, PrivateKey

FOLDER = "dkim"  # of keys, beside the configuration
KINDS = ("rsa", "ed25519")  # of the keys of a domain: no verifier knows neither
EXPONENT = 65537  # of RSA: the usual one

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class KeyMaker:
    """Makes the keys of a domain.

    `folder` is that of the configuration.  `owner`: the user and group that root gives files to,
    which the server has; None: they stay the caller's.
    """

    domain: str
    folder: Path
    owner: tuple[int, int] | None = None

    def make(
        self, kinds: Sequence[str], used: Collection[str], state: KeyState, now: datetime
    ) -> Sequence[DKIMKey]:
        """Make a key of each kind; `used` are the selectors of others.  Raises OSError."""
        folder = self.folder / FOLDER
        if not folder.is_dir():
            make_folder(folder, 0o750)
            if self.owner is not None:
                os.chown(folder, -1, self.owner[1])  # the server reads in it, and no more
        selectors = _selectors(now.year, used)
        return [self._make(folder, kind, selectors, state, now) for kind in kinds]

    def _make(
        self, folder: Path, kind: str, selectors: Iterator[str], state: KeyState, now: datetime
    ) -> DKIMKey:
        key = new_key(kind)
        for selector in selectors:
            # A crash, or a person, may have left files that the configuration does not name.
            if any(folder.glob(f"{self.domain}.{selector}.*")):
                continue
            path = folder / file_name(self.domain, selector, kind)
            if key_files.write(path, key, now, self.owner):
                return DKIMKey(selector, path, state)
        raise AssertionError("there is always another selector")


def new_key(kind: str) -> PrivateKey:
    """A new key of a kind: ``rsa`` or ``ed25519``."""
    if kind == "rsa":
        return PrivateKey(generate_private_key(EXPONENT, RSA_BITS), RSA)
    return PrivateKey(Ed25519PrivateKey.generate(), ED25519)


def file_name(domain: str, selector: str, kind: str) -> str:
    """The name of a new key's file."""
    return f"{domain}.{selector}.{kind}.pem"


def entry(key: DKIMKey, folder: Path) -> dict[str, str]:
    """A key as the configuration in a folder has it."""
    is_below = key.file.is_relative_to(folder)
    file = key.file.relative_to(folder) if is_below else key.file
    state = {} if key.state is KeyState.ACTIVE else {"state": key.state.value}
    return {"selector": key.selector, "key": str(file), **state}


def _selectors(year: int, used: Collection[str]) -> Iterator[str]:
    """Selectors of a year that none is behind: ``2026a`` and on.

    One that was used may still be in the DNS, with another key.
    """
    names = [f"{year}{_LETTERS[-1] * (n // 26)}{_LETTERS[n % 26]}" for n in range(26 * 26)]
    last = max((names.index(name) for name in used if name in names), default=-1)
    yield from names[last + 1 :]
    yield from (f"{year}-{number}" for number in count(1))
