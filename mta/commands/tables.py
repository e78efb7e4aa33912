"""The alias tables of other servers: aliases(5) and virtual(5).

Both are read as their authors meant them, as text: what a line says of an address of ours, in the
words of this program.  What it can't say (a command, a file) is a problem that names its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mta.commands.addressees import addressees
from mta.config import Problem
from mta.files import open_regular
from mta.mail import Mailbox
from mta.smtp import grammar

MAX_OCTETS = 64 * 2**20  # of one table
MAX_NESTED = 10  # files that include one another

_NO_TEXT = "\ufffd"  # what octets become that are not UTF-8
_ALONE = "{!r} stands alone, expected an address behind it"
_COLON = (
    "{!r} and a colon: a virtual table has only white space between a name and its addresses,"
    " and one with colons is read by `mta import aliases`"
)
_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"|\([^()]*\)|[^,"])+')
_KEY = re.compile(r'("(?:[^"\\]|\\.)*"|[^:"\s]+)\s*:(.*)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: an address, and the targets of its mail.

    An address without a local part is the whole domain: what has no line of its own goes to
    `targets`.  A target without a local part is the same name in another domain.  No targets:
    the domain is one of ours.
    """

    file: Path
    line: int
    address: Mailbox
    targets: tuple[Mailbox, ...]

    def problem(self, text: str) -> Problem:
        """A problem with the line."""
        return Problem(self.file, self.line, 1, text)


def aliases(path: Path, domain: str) -> Iterator[Entry | Problem]:
    """The lines of an aliases(5) file, for addresses in `domain`.  Raises OSError."""
    for line, text in _lines(path, path.open("rb")):
        match = _KEY.fullmatch(text)
        if match is None:
            yield Problem(path, line, 1, f"no `name: value` in {text[:40]!r}")
            continue
        try:
            _require_text(text)
            address = _one_address(match[1], domain)
            targets = tuple(_alias_targets(match[2], domain, path.parent, MAX_NESTED))
            if not targets:
                raise ValueError(_ALONE.format(match[1]))
        except ValueError as error:
            yield Problem(path, line, 1, str(error))
            continue
        yield Entry(path, line, _lowered(address), targets)


def virtual(path: Path, domain: str) -> Iterator[Entry | Problem]:
    """The lines of a virtual(5) table.  Names without a domain are in `domain`.  Raises OSError."""
    for line, text in _lines(path, path.open("rb")):
        pattern, *rest = text.split(None, 1)
        value = rest[0] if rest else ""
        try:
            _require_text(text)
            yield Entry(path, line, *_virtual_entry(pattern, value, domain))
        except ValueError as error:
            yield Problem(path, line, 1, str(error))


READERS: dict[str, Callable[[Path, str], Iterator[Entry | Problem]]] = {
    "aliases": aliases,
    "virtual": virtual,
}


def _alias_targets(value: str, domain: str, folder: Path, depth: int) -> Iterator[Mailbox]:
    """The addresses in the value of an alias, included files and all.  Raises ValueError."""
    for item in _ITEM.findall(value):
        word = item.strip()
        if len(word) > 1 and word[0] == word[-1] == '"':
            word = re.sub(r"\\(.)", r"\1", word[1:-1])
        if word.startswith("|"):
            raise ValueError(f"{word!r} is a command: a domain with `deliver: pipe:` can have one")
        if word.startswith("/"):
            raise ValueError(f"{word!r} is a file, and mail ends in Maildirs or is piped")
        if word.startswith(":include:"):
            yield from _included(folder / word.removeprefix(":include:").strip(), domain, depth)
        elif word.startswith(":") or word.lower().startswith("error:"):
            raise ValueError(f"{word!r} is no address")
        elif word:
            yield from addressees(word.removeprefix("\\"), domain)


def _included(path: Path, domain: str, depth: int) -> Iterator[Mailbox]:
    if not depth:
        raise ValueError(f"{path}: too many files that include one another")
    try:
        lines = list(_lines(path, open_regular(path)))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    for _, text in lines:
        yield from _alias_targets(text, domain, path.parent, depth - 1)


def _virtual_entry(pattern: str, value: str, domain: str) -> tuple[Mailbox, tuple[Mailbox, ...]]:
    """The address and the targets of one line.  Raises ValueError."""
    if pattern.endswith(":") or value.startswith(":"):
        raise ValueError(_COLON.format(pattern.removesuffix(":")))
    if not value:
        raise ValueError(_ALONE.format(pattern))
    if "@" not in pattern and "." in pattern and "@" not in value:
        return Mailbox("", _domain(pattern)), ()  # `example.com anything`
    if pattern.startswith("@"):
        address = Mailbox("", _domain(pattern[1:]))
    else:
        address = _lowered(_one_address(pattern, domain))
    targets: list[Mailbox] = []
    for item in _ITEM.findall(value):
        word = item.strip()
        targets += [Mailbox("", _domain(word[1:]))] if word[:1] == "@" else addressees(word, domain)
    return address, tuple(targets)


def _one_address(text: str, domain: str) -> Mailbox:
    """The one address in front of a line.  Raises ValueError."""
    found = addressees(text, domain)
    if len(found) != 1:
        raise ValueError(f"not an address: {text!r}")
    return found[0]


def _domain(text: str) -> str:
    try:
        return grammar.parse_domain(text)
    except ValueError:
        raise ValueError(f"not a domain: {text!r}") from None


def _require_text(line: str) -> None:
    """Raise ValueError where a line has octets that are no text."""
    if _NO_TEXT in line:
        raise ValueError("not UTF-8: iconv -f latin1 -t utf8 makes it so, as a rule")


def _lowered(address: Mailbox) -> Mailbox:
    return Mailbox(address.local_part.lower(), address.domain)


def _lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, str]]:
    """The logical lines of a table with their numbers, without comments.

    A line that begins with white space goes on with the one before.  Raises OSError.
    """
    with file:
        octets = file.read(MAX_OCTETS + 1)
    if len(octets) > MAX_OCTETS or b"\0" in octets:
        raise OSError(f"{path}: not a table of text; the source of a .db file has no ending")
    begun, parts = 0, [""]
    for number, line in enumerate(octets.decode("utf-8-sig", "replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and begun:
            parts.append(line.strip())
            continue
        if begun:
            yield begun, " ".join(parts)
        begun, parts = number, [line.strip()]
    if begun:
        yield begun, " ".join(parts)
