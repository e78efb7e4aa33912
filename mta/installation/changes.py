"""The changes that touch the file system: folders, files, links."""

from __future__ import annotations

import difflib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zope.interface import implementer

from mta.files import atomic_write, sync
from mta.installation.interfaces import IChange, State
from mta.installation.places import Accounts, Owner, Places
from mta.installation.record import FILE, Record

REPLACED = "~"  # the end of the name that a replaced file gets


@implementer(IChange)
class Folder:
    """A folder with an owner and a mode."""

    def __init__(self, places: Places, path: Path, owner: Owner, mode: int) -> None:
        self.title = f"{path}/"
        self._path = places.now(path)
        self._accounts = places.accounts
        self._owner = owner
        self._mode = mode

    def state(self) -> State:
        """See `IChange.state`."""
        return State.NEEDED if not self._path.is_dir() or self._has_wrong_owner() else State.DONE

    def difference(self) -> Sequence[str]:
        """See `IChange.difference`."""
        if self._path.is_dir():
            return [f"give {self.title} to {self._owner}which must write there"]
        return [f"new folder {self.title} ({self._owner}{self._mode:04o})"]

    def apply(self) -> str:
        """See `IChange.apply`."""
        ids = self._accounts.ids(self._owner)
        if self._path.is_dir():
            if ids:
                os.chown(self._path, *ids, follow_symlinks=False)
            return f"{self.title} belongs to {self._owner.user} now"
        self._path.parent.mkdir(0o755, parents=True, exist_ok=True)
        # It has its name only once it is as it should be: a second run may find half of the work.
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        draft.mkdir(0o700)
        try:
            if ids:
                os.chown(draft, *ids)
            draft.chmod(self._mode)
            draft.rename(self._path)
        except OSError:
            draft.rmdir()
            raise
        sync(self._path.parent)
        return f"made {self.title} ({self._owner}{self._mode:04o})"

    def _has_wrong_owner(self) -> bool:
        """Tell whether a folder that is there belongs to another user."""
        ids = self._accounts.ids(self._owner)
        return ids is not None and self._path.stat().st_uid != ids[0]


@dataclass(frozen=True, slots=True)
class Desired:
    """A file as an installation wants it."""

    path: Path
    text: str
    owner: Owner
    mode: int = 0o644


def record_of(places: Places) -> Record:
    """The record of an installation."""
    return Record(places.now(places.etc) / FILE, places.accounts.ids(places.roots))


@implementer(IChange)
class TextFile:
    """A file of text.

    One that a person has changed, or made, is kept; with `replaces` it is replaced, and what it
    was stays as ``FILE~``.
    """

    def __init__(self, places: Places, desired: Desired, *, replaces: bool = False) -> None:
        self.title = str(desired.path)
        self._path = places.now(desired.path)
        self._octets = desired.text.encode()
        self._desired = desired
        self._accounts: Accounts = places.accounts
        self._replaces = replaces
        self._record = record_of(places)

    def state(self) -> State:
        """See `IChange.state`."""
        present = self._present()
        if present == self._octets:
            return State.DONE
        if present is None or self._replaces or self._record.has(self._desired.path, present):
            return State.NEEDED
        return State.KEPT

    def difference(self) -> Sequence[str]:
        """See `IChange.difference`."""
        present = self._present()
        if present is None:
            return [f"new file {self.title} ({self._desired.owner}{self._desired.mode:04o})"]
        if self.state() is State.KEPT:
            return [f"{self.title} is yours and stays as it is (--replace shows and takes ours)"]
        lines = difflib.unified_diff(
            present.decode("utf-8", "replace").splitlines(),
            self._desired.text.splitlines(),
            self.title,
            f"{self.title} (new)",
            lineterm="",
        )
        return list(lines)

    def apply(self) -> str:
        """See `IChange.apply`."""
        present = self._present()
        is_ours = present is None or self._record.has(self._desired.path, present)
        if present is not None and not is_ours:
            before = self._path.with_name(self._path.name + REPLACED)
            before.unlink(missing_ok=True)
            before.hardlink_to(self._path)
        self._record.add(self._desired.path, self._octets)
        self._path.parent.mkdir(0o755, parents=True, exist_ok=True)
        ids = self._accounts.ids(self._desired.owner)
        atomic_write(self._path, self._octets, self._desired.mode, owner=ids)
        if present is None:
            return f"made {self.title} ({self._desired.owner}{self._desired.mode:04o})"
        return f"changed {self.title}" + ("" if is_ours else f"; it was {self.title}{REPLACED}")

    def _present(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None


@implementer(IChange)
class Link:
    """A symbolic link.  Whatever else has its name stays."""

    def __init__(self, places: Places, path: Path, target: Path, advice: str) -> None:
        self.title = str(path)
        self._path = places.now(path)
        self._target = target
        self._advice = advice

    def state(self) -> State:
        """See `IChange.state`."""
        if self._path.is_symlink() and self._path.readlink() == self._target:
            return State.DONE
        return State.KEPT if os.path.lexists(self._path) else State.NEEDED

    def difference(self) -> Sequence[str]:
        """See `IChange.difference`."""
        if self.state() is State.KEPT:
            return [f"{self.title} is another program's and stays: {self._advice}"]
        return [f"new link {self.title} to {self._target}"]

    def apply(self) -> str:
        """See `IChange.apply`."""
        self._path.parent.mkdir(0o755, parents=True, exist_ok=True)
        self._path.symlink_to(self._target)
        return f"linked {self.title} to {self._target}"
