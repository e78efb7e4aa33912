"""What a program did to a folder, and said: its system calls, recorded by strace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TRACED = (
    *("openat", "lseek", "write", "writev", "pwrite64", "ftruncate", "sendto"),
    *("fsync", "fdatasync", "syncfs"),
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir"),
)
SYNCS = {"fsync", "fdatasync"}

_LINE = re.compile(r"(?P<pid>\d+) +(?P<rest>.*)")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)(?P<more>.*)")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_UNFINISHED = " <unfinished ...>"
_DELETED = "(deleted)"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that succeeded.

    It ended as number `ended`, and when it began, `begun` had ended.

    `paths` are those of its descriptors and names, in order, `octets` what it wrote.
    """

    name: str
    paths: tuple[str, ...]
    octets: bytes
    numbers: tuple[int, ...]
    descriptor: int
    flags: str
    result: int
    begun: int
    ended: int


def strace(log: Path) -> list[str]:
    """The words that record the program whose words follow."""
    events = ",".join(TRACED)
    options = ["-f", "-y", "-xx", "-s", "100000000", "--seccomp-bpf", "--signal=none"]
    return ["strace", *options, f"--trace={events}", "-o", str(log)]


def calls(lines: Iterable[str]) -> list[Call]:
    """All calls of a recording that succeeded, in the order in which they ended."""
    found: list[Call] = []
    for text, begun in _whole(lines, found):
        match = _CALL.match(text)
        if match and int(match["result"]) >= 0:
            found.append(_call(match, begun, len(found)))
    return found


def _whole(lines: Iterable[str], found: Sequence[Call]) -> Iterator[tuple[str, int]]:
    """Join the halves of calls during which other threads called."""
    halves: dict[str, tuple[str, int]] = {}
    for line in lines:
        match = _LINE.match(line.rstrip("\n"))
        if not match:
            continue
        rest = match["rest"]
        if rest.endswith(_UNFINISHED):
            halves[match["pid"]] = rest.removesuffix(_UNFINISHED), len(found)
        elif resumed := _RESUMED.match(rest):
            first, begun = halves.pop(match["pid"])
            yield first + resumed["rest"], begun
        else:
            yield rest, len(found)


def _call(match: re.Match[str], begun: int, ended: int) -> Call:
    name, arguments = match["name"], match["arguments"]
    strings = [_octets(found) for found in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', arguments)]
    bare = re.sub(r'"[^"]*"', '""', arguments)
    descriptors = [_octets(found).decode() for found in re.findall(r"<([^>]*)>", bare)]
    plain = re.sub(r"<[^>]*>", "", bare)
    numbers = tuple(int(word) for word in re.findall(r"(?<![\w-])\d+(?!\w)", plain))
    octets = b""
    if name in ("write", "writev", "pwrite64", "sendto"):
        octets, strings = b"".join(strings), []
    paths = _joined(name, descriptors, [each.decode() for each in strings])
    opened = re.match(r"<([^>]*)>", match["more"])
    if name == "openat" and opened:
        paths = (_octets(opened[1]).decode(),)
    flags = "|".join(re.findall(r"[OA]\w*_\w+(?:\|\w+)*", plain))
    descriptor = int(match["result"]) if name == "openat" else numbers[0] if numbers else -1
    result = int(match["result"])
    return Call(name, paths, octets, numbers, descriptor, flags, result, begun, ended)


def _joined(name: str, folders: list[str], names: list[str]) -> tuple[str, ...]:
    """Absolute paths: of the descriptor itself, or of names below the folders."""
    if not names:
        return tuple(folders[:1])
    if name.endswith("at") or name == "renameat2":
        pairs = zip(folders, names, strict=True)
        return tuple(str(Path(folder) / name) for folder, name in pairs)
    return tuple(names)


def _octets(text: str) -> bytes:
    r"""What strace wrote as ``\x61\x62``; the mark of a deleted file stays as it is."""
    deleted = text.endswith(_DELETED)
    octets = bytes(int(pair, 16) for pair in re.findall(r"\\x([0-9a-f]{2})", text))
    return octets + _DELETED.encode() if deleted else octets
