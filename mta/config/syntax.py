"""Faults in the syntax of YAML, in words for the author."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

_HINTS = {
    r"found character '[^\\]'": "a value that begins with this sign stands in quotes",
    r"found unexpected end of stream": "a quote that is opened here is never closed",
    r"expected ',' or": "what is opened here is not closed, or lacks a comma",
    r"expected <block end>": "indent it as the lines that it belongs to",
    r"found unknown escape": "use single quotes, or write \\\\",
}
_MAPPING_VALUE = "mapping values are not allowed here"
_NO_COLON = "could not find expected ':'"

_Place = tuple[int, int]


def explain(text: str, error: yaml.MarkedYAMLError) -> tuple[str, _Place]:
    """Explain a fault in the text.  Returns its line and column too, counted from 0."""
    mark = error.problem_mark or error.context_mark
    place = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    if error.problem == _NO_COLON and error.context_mark:
        begun = error.context_mark.line, error.context_mark.column
        return f"expected {_with_colon(lines[begun[0]][begun[1] :])!r}", begun
    if error.problem == _MAPPING_VALUE:
        return _of_mapping_value(lines, place)
    problem = ", ".join(filter(None, (error.context, error.problem)))
    for pattern, hint in _HINTS.items():
        if re.search(pattern, error.problem or ""):
            if "here" in hint and error.context_mark:
                place = error.context_mark.line, error.context_mark.column
            return f"{problem}: {hint}", place
    return problem, place


def _of_mapping_value(lines: Sequence[str], place: _Place) -> tuple[str, _Place]:
    """Explain a line that has a colon where none may be."""
    number, column = place
    line = lines[number]
    if ": " in line[:column]:
        return "found a second ': ', expected the value in quotes", place
    above = number - 1
    while above >= 0 and not re.sub(r"(^|\s)#.*", "", lines[above]).strip():
        above -= 1
    before = re.sub(r"\s#.*", "", lines[above]) if above >= 0 else ""
    if above >= 0 and not re.search(r":(\s|$)", before):
        return f"expected {_with_colon(before)!r}", (above, len(before) - len(before.lstrip()))
    return "indented deeper than the line above, which has a value already", place


def _with_colon(line: str) -> str:
    """The line as it is probably meant: a key, maybe a value."""
    text = re.sub(r"\s#.*", "", line).strip()
    key_and_value = re.fullmatch(r"([\w.-]+)(?::|\s+)(\S.*)", text)
    return f"{key_and_value[1]}: {key_and_value[2]}" if key_and_value else f"{text}:"
