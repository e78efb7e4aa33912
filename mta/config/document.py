"""A YAML file as values that know their places.

A reader is a function that takes a `Value` and returns what it means, or raises
ConfigurationError.  Readers of lists and mappings go on after a problem, so that a person sees
all problems of a file at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from mta.config.syntax import explain
from mta.mail import canonical_domain

MAX_OCTETS = 4 * 2**20  # of a file
MAX_VALUES = 200_000  # in a file, each alias counted as all that it stands for
MAX_DEPTH = 20  # of lists and mappings in each other

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, and its place.  `line` and `column` count from 1."""

    file: Path
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text}"


class ConfigurationError(Exception):
    """A configuration that can't be taken.  Its text is one line for each of its `problems`."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        # One value may be read at several places, through YAML aliases.
        self.problems: tuple[Problem, ...] = tuple(sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Source:
    """The source of values: a file, and the variables for ``{env: NAME}``.

    `secrets`: whether secrets are read, and the files that it names opened to see that they can be.
    """

    file: Path
    environ: Mapping[str, str]
    secrets: bool = True

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from, without symbolic links."""
        return self.file.parent.resolve()

    def wrong(self, text: str, line: int = 1, column: int = 1) -> ConfigurationError:
        """The error to raise for a place in the file."""
        return ConfigurationError([Problem(self.file, line, column, text)])


@dataclass(frozen=True, slots=True)
class Value:
    """One value of the file and its place."""

    node: yaml.Node
    source: Source

    @property
    def line(self) -> int:
        """The line that the value starts in, counted from 1."""
        return self.node.start_mark.line + 1

    @property
    def is_mapping(self) -> bool:
        """Return whether this is a mapping."""
        return isinstance(self.node, yaml.MappingNode)

    @property
    def is_list(self) -> bool:
        """Return whether this is a list."""
        return isinstance(self.node, yaml.SequenceNode)

    @property
    def place(self) -> tuple[int, int]:
        """The line and the column of its start, both counted from 1."""
        return self.line, self.node.start_mark.column + 1

    def wrong(self, text: str) -> ConfigurationError:
        """The error to raise for this value."""
        return self.source.wrong(text, *self.place)

    def wrong_key(self, key: str, text: str) -> ConfigurationError:
        """The error to raise for a key that was read before."""
        place, _ = self.member(key)
        return place.wrong(text)

    def text(self, expected: str) -> str:
        """The characters of a scalar as they stand in the file.

        ``off`` is no truth value here.  `expected` says what would be right.  Raises
        ConfigurationError.
        """
        if not isinstance(self.node, yaml.ScalarNode) or self._is_nothing:
            raise self._unexpected(expected)
        text: str = self.node.value
        if _CONTROL.search(text):
            raise self.wrong(f"found a line break or control character, expected {expected}")
        return text

    def items(self, expected: str) -> list[Value]:
        """The members of a list.  Raises ConfigurationError."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self._unexpected(expected)
        return [Value(node, self.source) for node in self.node.value]

    def members(self, expected: str) -> list[tuple[Value, Value]]:
        """The keys and values of a mapping.

        Nothing at all is an empty one.  Raises ConfigurationError.
        """
        if self._is_nothing:
            return []
        if not isinstance(self.node, yaml.MappingNode):
            raise self._unexpected(expected)
        return [
            (Value(key, self.source), Value(item, self.source)) for key, item in self.node.value
        ]

    def member(self, *keys: str) -> tuple[Value, Value]:
        """Key and value of the member that these keys lead to.

        They may be written in another form.  A member of a list, by its number, is its own key.
        For values that were read before: raises LookupError where there is none.
        """
        if self.is_list and keys[0].isdecimal():
            found = self.items("a list")[int(keys[0])]
            return found.member(*keys[1:]) if keys[1:] else (found, found)
        for key, item in self.members("a mapping"):
            if canonical_domain(str(key.node.value)) == canonical_domain(keys[0]):
                return item.member(*keys[1:]) if keys[1:] else (key, item)
        raise LookupError(keys[0])

    @property
    def _is_nothing(self) -> bool:
        return self.node.tag == "tag:yaml.org,2002:null"

    def _unexpected(self, expected: str) -> ConfigurationError:
        if self._is_nothing:
            found = "nothing"
        elif self.is_list:
            found = "a list"
        elif self.is_mapping:
            found = "a mapping"
        else:
            found = "a single value"
        return self.wrong(f"found {found}, expected {expected}")


T = TypeVar("T")
Reader = Callable[[Value], T]
Fields = Mapping[str, Reader[Any]]


class Findings:
    """The problems that several readers found, to be raised together."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the problems that are raised inside, and go on behind it."""
        try:
            yield
        except ConfigurationError as error:
            self._problems.extend(error.problems)

    def raise_if_any(self) -> None:
        """Raise ConfigurationError if there were any."""
        if self._problems:
            raise ConfigurationError(self._problems)


def list_of(read: Reader[T], expected: str = "a list") -> Reader[tuple[T, ...]]:
    """The reader of a list whose members `read` takes."""

    def reader(value: Value) -> tuple[T, ...]:
        findings = Findings()
        found: list[T] = []
        for item in value.items(expected):
            with findings.collect():
                found.append(read(item))
        findings.raise_if_any()
        return tuple(found)

    return reader


def table_of(
    read_key: Reader[str], read: Callable[[str, Value], T], expected: str
) -> Reader[dict[str, T]]:
    """The reader of a mapping with free keys.  `read` is given the key too."""

    def reader(value: Value) -> dict[str, T]:
        findings = Findings()
        found: dict[str, T] = {}
        for name, item in _entries(value, read_key, expected, findings).items():
            with findings.collect():
                found[name] = read(name, item)
        findings.raise_if_any()
        return found

    return reader


def read_record(value: Value, fields: Fields, required: Iterable[str] = ()) -> dict[str, Any]:
    """Read a mapping with known keys.

    Keys that are absent in the file are absent in the result.  Raises ConfigurationError.
    """
    findings = Findings()
    found = read_fields(value, fields, findings)
    findings.raise_if_any()
    for name in required:
        if name not in found:
            raise value.wrong(f"missing key {name!r}")
    return found


def read_fields(value: Value, fields: Fields, findings: Findings) -> dict[str, Any]:
    """Read the members of a mapping with known keys that are right."""

    def known(key: Value) -> str:
        name = key.text("a key")
        if name not in fields:
            raise key.wrong(f"unknown key {name!r}, {suggest(name, fields)}")
        return name

    found: dict[str, Any] = {}
    expected = f"a mapping with {listed(fields)}"
    for name, item in _entries(value, known, expected, findings).items():
        with findings.collect():
            found[name] = fields[name](item)
    return found


def _entries(
    value: Value, read_key: Reader[str], expected: str, findings: Findings
) -> dict[str, Value]:
    """The members of a mapping.  A wrong key, or one that comes twice, is a finding."""
    keys: dict[str, Value] = {}
    items: dict[str, Value] = {}
    with findings.collect():
        for key, item in value.members(expected):
            with findings.collect():
                name = read_key(key)
                if name in keys:
                    raise key.wrong(
                        f"duplicate key {name!r}, expected once: see line {keys[name].line}"
                    )
                keys[name], items[name] = key, item
    return items


def suggest(name: str, known: Iterable[str], expected: str = "") -> str:
    """The end of a line about an unknown word.  It has a near one, or what was `expected`."""
    near = difflib.get_close_matches(name.lower(), known, 1)
    return f"did you mean {near[0]!r}?" if near else f"expected {expected or listed(known)}"


def listed(words: Iterable[str]) -> str:
    """Words as a sentence names them: ``a, b or c``."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def read(source: Source) -> str:
    """The text of a file.  Raises ConfigurationError."""
    try:
        with source.file.open("rb") as file:
            octets = file.read(MAX_OCTETS + 1)
    except OSError as error:
        raise source.wrong(f"can't be read: {error.strerror}, expected a file") from error
    if len(octets) > MAX_OCTETS:
        raise source.wrong(f"too large, expected at most {MAX_OCTETS} octets")
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        raise _at(source, before, "not UTF-8 text, expected the file in that encoding") from None


def parse(text: str, source: Source) -> Value:
    """Parse the text of a file as YAML, whatever it means.

    Raises ConfigurationError where it isn't YAML, or is out of all proportion.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        problem, (line, column) = explain(text, error)
        raise source.wrong(f"not YAML: {problem}", line + 1, column + 1) from None
    except yaml.reader.ReaderError as error:
        raise _at(
            source, text[: error.position], "found a control character, expected text"
        ) from None
    if node is None:
        raise source.wrong("the file is empty, expected 'hostname: NAME' and more")
    _require_bounded(Value(node, source))
    return Value(node, source)


class _Loader(yaml.SafeLoader):
    """A composer of nodes, without tags and of bounded depth."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                None, None, f"found the tag {event.tag}, expected a plain value", event.start_mark
            )
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                None, None, f"expected no more than {MAX_DEPTH} levels", event.start_mark
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _require_bounded(root: Value) -> None:
    """Require that aliases do not multiply a file beyond a bound.  Circles have none."""
    waiting, count = [root.node], 0
    while waiting:
        node = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            raise root.wrong(f"too large with all aliases, expected at most {MAX_VALUES} values")
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            waiting.extend(part for member in node.value for part in member)


def _at(source: Source, before: str, text: str) -> ConfigurationError:
    """The error for the place that comes after the text `before`."""
    line = before.count("\n") + 1
    return source.wrong(text, line, len(before) - before.rfind("\n"))
