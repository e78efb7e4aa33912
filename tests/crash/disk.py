"""A disk that loses power: what it may hold, from the calls that a program made.

What was written, named or cut since the last sync may be there or not, each piece for itself: each
name, and of each write every block.  What was synced is there.  Names are synced with their folder
alone; `names_with_files`: with the file, too, as ext4, XFS and Btrfs do it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.recording import SYNCS, Call

BLOCKS = (512, 4096)  # octets that a disk writes at once
Entry = tuple[int, str]  # a folder and a name in it


@dataclass(frozen=True, slots=True)
class Write:
    """Octets in a file.  `end`: the file is cut there instead."""

    node: int
    place: int
    octets: bytes = b""
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Names:
    """Names that change together, as rename changes two.  None: the name is gone."""

    changes: tuple[tuple[Entry, int | None], ...]


Change = Write | Names


@dataclass
class Tree:
    """Names and files.  A node without content is a folder; the root is 0."""

    entries: dict[Entry, int] = field(default_factory=dict)
    files: dict[int, bytearray] = field(default_factory=dict)

    def copy(self) -> Tree:
        """Another one that is the same."""
        return Tree(dict(self.entries), {node: bytearray(f) for node, f in self.files.items()})

    def apply(self, change: Change) -> None:
        """Let a change happen."""
        if isinstance(change, Names):
            for entry, node in change.changes:
                if node is None:
                    self.entries.pop(entry, None)
                else:
                    self.entries[entry] = node
            return
        file = self.files.setdefault(change.node, bytearray())
        if change.is_cut:
            del file[change.place :]
        end = change.place + len(change.octets)
        file.extend(bytes(max(0, end - len(file))))
        file[change.place : end] = change.octets

    def write(self, root: Path, node: int = 0) -> None:
        """Make it on a real disk."""
        root.mkdir(parents=True, exist_ok=True)
        for (folder, name), child in self.entries.items():
            if folder == node and child in self.files:
                (root / name).write_bytes(self.files[child])
            elif folder == node:
                self.write(root / name, child)


class Disk:
    """A disk below a folder, to which calls are made."""

    def __init__(self, root: Path, *, names_with_files: bool = False) -> None:
        self.safe = Tree()  # synced
        self.pending: list[tuple[int, Change]] = []  # not synced, with the number of its call
        self.root = str(root)
        self._names_with_files = names_with_files
        self._entries: dict[Entry, int] = {}
        self._sizes: dict[int, int] = {}
        self._places: dict[int, int] = {}  # of descriptors
        self._last = 0
        self._load(root, 0)

    def _load(self, path: Path, node: int) -> None:
        for child in path.iterdir() if path.is_dir() else ():
            if child.is_file() or child.is_dir():
                self._last += 1
                self._entries[node, child.name] = number = self._last
                if child.is_file():
                    self.safe.files[number] = bytearray(child.read_bytes())
                    self._sizes[number] = child.stat().st_size
                else:
                    self._load(child, number)
        self.safe.entries = dict(self._entries)

    # --- calls

    def make(self, call: Call) -> None:
        """Do what a call did."""
        inside = [self._inside(path) for path in call.paths]
        if call.name == "syncfs":
            self._sync(call.begun, lambda change: True)
        elif not inside or all(path is None for path in inside):
            return
        elif call.name in SYNCS:
            self._sync_one(call, inside[0] or "")
        else:
            steps = getattr(self, f"_{call.name.removesuffix('64').rstrip('2').removesuffix('at')}")
            for change in steps(call, [path or "" for path in inside]):
                self.pending.append((call.ended, change))
                if isinstance(change, Names):
                    for entry, node in change.changes:
                        self._set(entry, node)

    def _inside(self, path: str) -> str | None:
        """The path below the root; None: elsewhere, or a file without a name."""
        if not path.startswith(self.root + "/") or path.endswith("(deleted)"):
            return "" if path == self.root else None
        return path[len(self.root) + 1 :]

    def _node(self, path: str) -> int | None:
        node: int | None = 0
        for name in filter(None, path.split("/")):
            node = None if node is None else self._entries.get((node, name))
        return node

    def _entry(self, path: str) -> Entry:
        folder, _, name = path.rpartition("/")
        node = self._node(folder)
        assert node is not None, path
        return node, name

    def _set(self, entry: Entry, node: int | None) -> None:
        if node is None:
            self._entries.pop(entry, None)
        else:
            self._entries[entry] = node

    def _open(self, call: Call, paths: Sequence[str]) -> Iterator[Change]:
        node = self._node(paths[0])
        if "O_CREAT" in call.flags and node is None:
            self._last += 1
            node = self._last
            self._sizes[node] = 0
            self.safe.files[node] = bytearray()  # without a name, so far
            yield Names(((self._entry(paths[0]), node),))
        elif "O_TRUNC" in call.flags and node is not None:
            self._sizes[node] = 0
            yield Write(node, 0, is_cut=True)
        at_end = "O_APPEND" in call.flags and node is not None
        self._places[call.descriptor] = self._sizes.get(node or 0, 0) if at_end else 0

    def _lseek(self, call: Call, paths: Sequence[str]) -> Iterator[Change]:
        self._places[call.descriptor] = call.result
        yield from ()

    def _write(self, call: Call, paths: Sequence[str]) -> Iterator[Change]:
        place = self._places.get(call.descriptor, 0)
        self._places[call.descriptor] = place + call.result
        yield from self._written(call, paths[0], place)

    _writev = _write

    def _pwrite(self, call: Call, paths: Sequence[str]) -> Iterator[Change]:
        yield from self._written(call, paths[0], call.numbers[-1])

    def _written(self, call: Call, path: str, place: int) -> Iterator[Change]:
        node = self._node(path)
        if node is not None and node in self._sizes:
            self._sizes[node] = max(self._sizes[node], place + call.result)
            yield Write(node, place, call.octets[: call.result])

    def _ftruncate(self, call: Call, paths: Sequence[str]) -> Iterator[Change]:
        node, size = self._node(paths[0]), call.numbers[-1]
        if node is not None:
            grown = bytes(max(0, size - self._sizes[node]))
            place = self._sizes[node] if grown else size
            self._sizes[node] = size
            yield Write(node, place, grown, is_cut=True)

    def _rename(self, call: Call, paths: Sequence[str]) -> Iterator[Change]:
        old, new = map(self._entry, paths)
        yield Names(((old, None), (new, self._entries[old])))

    def _link(self, call: Call, paths: Sequence[str]) -> Iterator[Change]:
        old, new = map(self._entry, paths)
        yield Names(((new, self._entries[old]),))

    def _unlink(self, call: Call, paths: Sequence[str]) -> Iterator[Change]:
        entry = self._entry(paths[0])
        if entry in self._entries:  # a pipe is no file
            yield Names(((entry, None),))

    _rmdir = _unlink

    def _mkdir(self, call: Call, paths: Sequence[str]) -> Iterator[Change]:
        self._last += 1
        yield Names(((self._entry(paths[0]), self._last),))

    # --- syncs

    def _sync_one(self, call: Call, path: str) -> None:
        node = self._node(path)

        def is_synced(change: Change) -> bool:
            if isinstance(change, Write):
                return change.node == node
            if self._names_with_files and any(each == node for _, each in change.changes):
                return True
            return any(folder == node for (folder, _), _ in change.changes)

        self._sync(call.begun, is_synced)

    def _sync(self, begun: int, is_synced: Callable[[Change], bool]) -> None:
        """Make safe what had ended when the sync began."""
        kept = []
        for number, change in self.pending:
            if number < begun and is_synced(change):
                self.safe.apply(change)
            else:
                kept.append((number, change))
        self.pending = kept

    # --- a loss of power

    def after_loss(self, chance: random.Random) -> Tree:
        """One of the states in which the disk may be found now."""
        changes = [change for _, change in self.pending]
        match chance.randrange(6):
            case 0:
                chosen: list[Change] = []
            case 1:
                chosen = changes
            case 2:  # in order, up to some point
                chosen = changes[: chance.randint(0, len(changes))]
            case 3:  # one is missing
                chosen = list(changes)
                if chosen:
                    del chosen[chance.randrange(len(chosen))]
            case 4:  # one alone
                chosen = [chance.choice(changes)] if changes else []
            case _:
                chosen = [change for change in changes if chance.random() < 0.5]
        block = chance.choice((0, *BLOCKS))
        tree = self.safe.copy()
        for change in chosen:
            for part in _torn(change, block, chance) if block else [change]:
                tree.apply(part)
        return tree


def _torn(change: Change, block: int, chance: random.Random) -> Iterator[Change]:
    """Some of the blocks of a write."""
    if isinstance(change, Names) or not change.octets:
        yield change
        return
    if change.is_cut:
        yield Write(change.node, change.place, is_cut=True)
    start = 0
    while start < len(change.octets):
        end = start + block - (change.place + start) % block
        if chance.random() < 0.7:
            yield Write(change.node, change.place + start, change.octets[start:end])
        start = end


def states(
    disk: Disk, calls: Sequence[Call], per_call: Mapping[int, int], chance: random.Random
) -> Iterator[tuple[int, Tree]]:
    """States after losses of power; `per_call`: how many after so many calls.

    Each comes with the number of calls that had ended.
    """
    for number, call in enumerate(calls):
        for _ in range(per_call.get(number, 0)):
            yield number, disk.after_loss(chance)
        disk.make(call)
    for _ in range(per_call.get(len(calls), 0)):
        yield len(calls), disk.after_loss(chance)
