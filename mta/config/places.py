"""The places of values in a configuration file, for problems found later."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mta.config.document import Problem, Source, Value, parse, read

Keys = Sequence[str | int]

_URL_WITH_SECRET = re.compile(r"smtps?://[^/@]*:[^/@]+@")


class Places:
    """The places in a file that could be loaded.  Raises ConfigurationError where it can't be."""

    def __init__(self, path: Path) -> None:
        source = Source(path, {}, secrets=False)
        self._root = parse(read(source), source)

    def problem(self, keys: Keys, text: str) -> Problem:
        """A problem with the value that keys and numbers lead to.

        Where they lead to nothing, it is at the last value on the way.
        """
        value, line, column = self._root, 1, 1
        for key in keys:
            try:
                if isinstance(key, int):
                    value = value.items("a list")[key]
                    line, column = value.place
                else:
                    named, value = value.member(key)
                    is_nested = value.is_mapping or value.is_list
                    line, column = named.place if is_nested else value.place
            except LookupError:
                break
        return Problem(self._root.source.file, line, column, text)

    def secrets(self) -> Iterator[tuple[Value, Path | None]]:
        """Each secret that the file names, and its file; None: this one."""
        yield from _secrets(self._root)

    def file_of(self, keys: Keys) -> Path | None:
        """The file of a secret, by its keys; None: there is none."""
        value = self._root
        for key in (*keys, "file"):
            members = value.members("a mapping") if value.is_mapping else ()
            found = [item for named, item in members if named.node.value == key]
            if not found:
                return None
            (value,) = found
        return value.source.folder / str(value.node.value)


def _secrets(value: Value) -> Iterator[tuple[Value, Path | None]]:
    if value.is_list:
        for item in value.items("a list"):
            yield from _secrets(item)
    elif value.is_mapping:
        for key, item in value.members("a mapping"):
            if key.node.value != "secret":
                yield from _secrets(item)
            elif not item.is_mapping:
                yield item, None
            else:
                for kind, place in item.members("a mapping"):
                    if kind.node.value == "file":
                        yield place, place.source.folder / place.node.value
    elif _URL_WITH_SECRET.match(str(value.node.value)):
        yield value, None
