"""Carrying an edit over to the lines as their author wrote them.

ruamel.yaml writes a whole file in a form of its own: `before` is the file in that form, `after` the
same with the edit.  `merged` finds the edit between the two, and makes it in the written lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

_FREE = re.compile(r"\s*(?:#.*)?")  # a line without a value
_COMMENT = re.compile(r"(?:^|\s)(#.*)")


class FormLost(Exception):
    """An edit would lay out other lines anew, from `line` on."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def merged(written: Sequence[str], before: Sequence[str], after: Sequence[str]) -> list[str]:
    """The lines as they were written, but for what was edited.  Raises FormLost."""
    after = _tidied(before, after)
    lines: list[str] = []
    done, old, new = 0, 0, 0
    for in_written, in_before, in_after, length in _common(written, before, after):
        ours, theirs = written[done:in_written], after[new:in_after]
        found = _merged_part(ours, before[old:in_before], theirs)
        if found is None:
            raise FormLost(done + 1)
        done, old, new = in_written + length, in_before + length, in_after + length
        lines += [*found, *written[in_written:done]]
    return lines


def _merged_part(
    written: Sequence[str], before: Sequence[str], after: Sequence[str]
) -> Sequence[str] | None:
    """The same for some lines; None where their form would be lost."""
    if after == before:
        return written
    if written == before:
        return after
    if len(written) == len(before):
        lines: list[str] = []
        for kind, start, end, new_start, new_end in _compared(before, after).get_opcodes():
            if kind != "equal" and not _is_like(written[start:end], after[new_start:new_end]):
                return None
            lines += written[start:end] if kind == "equal" else after[new_start:new_end]
        return lines
    if after[: len(before)] == before:
        return [*written, *after[len(before) :]]
    if after[len(after) - len(before) :] == before:
        return [*after[: len(after) - len(before)], *written]
    return None


def _is_like(old: Sequence[str], new: Sequence[str]) -> bool:
    """Tell whether new lines have the comments and indentation of the old."""
    if not (old and new):
        return True
    text = "\n".join(new)
    has_comments = all(match[1] in text for line in old for match in _COMMENT.finditer(line))
    return has_comments and _indent(old[0]) == _indent(new[0])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _compared(one: Sequence[str], other: Sequence[str]) -> SequenceMatcher[str]:
    """A comparison of lines, by those that are not empty."""
    return SequenceMatcher(lambda line: not line, one, other)


def _common(
    written: Sequence[str], before: Sequence[str], after: Sequence[str]
) -> Iterator[tuple[int, int, int, int]]:
    """Runs of lines that all have: their places, and length; ends last."""
    ours = _compared(before, written).get_matching_blocks()
    theirs = _compared(before, after).get_matching_blocks()
    mine = other = 0
    while mine < len(ours) and other < len(theirs):
        one, two = ours[mine], theirs[other]
        start, end = max(one.a, two.a), min(one.a + one.size, two.a + two.size)
        if start < end:
            yield one.b + start - one.a, start, two.b + start - two.a, end - start
        if one.a + one.size < two.a + two.size:
            mine += 1
        else:
            other += 1
    yield len(written), len(before), len(after), 0


def _tidied(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """The lines after an edit, with comments where they belong.

    To ruamel, all comments behind a value are that value's, also those of what comes next: new
    keys would come behind them, and with the last key of a mapping they would be gone.
    """
    lines: list[str] = []
    for kind, start, end, new_start, new_end in _compared(before, after).get_opcodes():
        new = after[new_start:new_end]
        if kind == "insert":
            free = _free_at_end(lines)
            lines[len(lines) - free : len(lines) - free] = new
        else:
            lines += new
        if kind in ("delete", "replace"):
            old = before[start:end]
            lines += old[len(old) - _free_at_end(old) :] if not _free_at_end(new) else []
    return lines


def _free_at_end(lines: Sequence[str]) -> int:
    """The number of lines at the end that have no value."""
    count = 0
    while count < len(lines) and _FREE.fullmatch(lines[-1 - count]):
        count += 1
    return count
