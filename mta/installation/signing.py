"""The keys that sign the mail of new domains (DKIM)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from zope.interface import implementer

from mta.installation.interfaces import IChange, State
from mta.installation.places import Places
from mta.settings import DKIMKey
from mta.signing import key_files
from mta.signing.making import FOLDER, KINDS, file_name, new_key

_SELECTOR = "[0-9a-z-]+"  # without dots: another domain could begin as ours


def keys_of(places: Places, domain: str) -> Sequence[DKIMKey]:
    """The keys of a new domain, one of each kind.

    Files that are there already are taken: an installation may have stopped before it wrote the
    configuration.
    """
    year = datetime.now(UTC).year
    selectors = (f"{year}{letter}" for letter in "abcdefgh")
    return [_key(places, domain, kind, next(selectors)) for kind in KINDS]


def installed(places: Places, key: DKIMKey) -> DKIMKey:
    """A configured key, with its path in the installed system."""
    if places.is_this_host or not key.file.is_relative_to(places.root):
        return key
    return replace(key, file=Path("/", key.file.relative_to(places.root)))


def _key(places: Places, domain: str, kind: str, selector: str) -> DKIMKey:
    folder = places.etc / FOLDER
    form = re.compile(f"{re.escape(domain)}\\.({_SELECTOR})\\.{kind}\\.pem")
    present = places.now(folder)
    names = sorted(each.name for each in present.iterdir()) if present.is_dir() else []
    for match in reversed([match for name in names if (match := form.fullmatch(name))]):
        return DKIMKey(match[1], folder / match[0])
    return DKIMKey(selector, folder / file_name(domain, selector, kind))


@implementer(IChange)
class SigningKey:
    """The file of a key, which is never replaced."""

    def __init__(self, places: Places, domain: str, path: Path) -> None:
        self.title = str(path)
        self._domain = domain
        self._kind = path.suffixes[-2].removeprefix(".")
        self._path = places.now(path)
        self._places = places

    def state(self) -> State:
        """See `IChange.state`."""
        return State.DONE if self._path.exists() else State.NEEDED

    def difference(self) -> Sequence[str]:
        """See `IChange.difference`."""
        return [f"new file {self.title}, a key that signs the mail of {self._domain}"]

    def apply(self) -> str:
        """See `IChange.apply`."""
        # Only now: the server's user may be one of the plan's own changes.
        owner = self._places.accounts.ids(self._places.servers)
        key_files.write(self._path, new_key(self._kind), datetime.now(UTC), owner)
        return (
            f"made {self.title}, which signs the mail of {self._domain}:"
            f" mta dkim records {self._domain}"
        )
