"""More members for the mappings of a YAML file, and everything else in it as it was.

The file is a person's: comments, order and form stay.  New members come as lines behind those that
are there, or before the closing brace where a mapping is written in braces.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from operator import itemgetter
from typing import Any

import yaml

from mta.config.document import ConfigurationError, Problem, Value

STEP = 2  # columns that a new mapping is indented further than its key

Keys = tuple[str, ...]

# By key: the text of a value, or the members of a mapping.
_Tree = dict[str, "str | _Tree"]


class Misfit(ConfigurationError):
    """What was added does not fit.

    `blamed` are the problems in the lines of additions, by the keys of each; `problems` are all.
    """

    def __init__(
        self, problems: Collection[Problem], root: Value, additions: Collection[Keys]
    ) -> None:
        super().__init__(problems)
        places = sorted((*root.member(*keys)[0].place, keys) for keys in additions)
        self.blamed: dict[Keys, Problem] = {}
        for problem in self.problems:
            # The last one that begins in its line, and not behind it.
            index = bisect_right(places, (problem.line, problem.column + 1, ())) - 1
            if index >= 0 and places[index][0] == problem.line:
                self.blamed[places[index][2]] = problem


def with_additions(text: str, root: Value, additions: Mapping[Keys, Any]) -> str:
    """The text of a file with more in it.

    `root` is what `text` was parsed to.  `additions` are values by the keys that lead to them;
    mappings on the way that the file does not have are made.  Raises ConfigurationError where
    the file has something else in such a place.
    """
    pieces, done = [], 0
    # A stable order: at one place, the inner members come first.
    for place, piece in sorted(_insertions(text, root, 0, _tree(additions)), key=itemgetter(0)):
        pieces += [text[done:place], piece]
        done = place
    return "".join([*pieces, text[done:]])


def _tree(additions: Mapping[Keys, Any]) -> _Tree:
    tree: _Tree = {}
    for (*way, last), value in additions.items():
        members = tree
        for key in way:
            inner = members.setdefault(key, {})
            assert isinstance(inner, dict)
            members = inner
        members[last] = _flow(value)
    return tree


def _flow(value: Any) -> str:
    """A value as it may stand between braces, on one line."""
    dumped = yaml.safe_dump(
        [value],
        default_flow_style=True,
        allow_unicode=True,
        sort_keys=False,
        width=float("inf"),
    )
    return dumped.strip()[1:-1]


def _insertions(text: str, value: Value, column: int, tree: _Tree) -> Iterator[tuple[int, str]]:
    """Pieces of text, each with its place.  A block that must be made begins at `column`."""
    known = {str(key.node.value).lower(): (key, item) for key, item in value.members("a mapping")}
    new: _Tree = {}
    for name, wanted in tree.items():
        if name not in known:
            new[name] = wanted
            continue
        key, item = known[name]
        if isinstance(wanted, str) or item.node.start_mark.index < key.node.end_mark.index:
            raise key.wrong(f"{name!r} can't be added to, expected a mapping of its own here")
        yield from _insertions(text, item, key.node.start_mark.column + STEP, wanted)
    if not new:
        return
    node = value.node
    if not isinstance(node, yaml.MappingNode):
        if node.start_mark.index < node.end_mark.index:
            raise value.wrong("nothing can be added to this, expected a mapping or no value at all")
        yield _line_end(text, node), "".join(_lines(new, column))
    elif node.flow_style:
        closing = node.end_mark.index - 1
        last = node.value[-1][1].end_mark.index if node.value else closing
        is_open = "," in re.sub(r"#.*", "", text[last:closing]) or not node.value
        yield closing, ("" if is_open else ", ") + _members(new)
    else:
        first, _ = node.value[0]
        yield _line_end(text, node), "".join(_lines(new, first.start_mark.column))


def _line_end(text: str, node: yaml.Node) -> int:
    """Where the last line of a node ends, comment included."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    end = len(text[: node.end_mark.index].rstrip())  # that of a text block has more lines
    line_end = text.find("\n", end)
    return line_end if line_end >= 0 else len(text)


def _lines(tree: _Tree, column: int) -> Iterator[str]:
    """Members as lines, each with the line end before it."""
    for name, value in tree.items():
        head = f"\n{' ' * column}{_flow(name)}:"
        if isinstance(value, str):
            yield f"{head} {value}"
        else:
            yield head
            yield from _lines(value, column + STEP)


def _members(tree: _Tree) -> str:
    """Members as they stand between braces."""
    return ", ".join(
        f"{_flow(name)}: {value if isinstance(value, str) else '{' + _members(value) + '}'}"
        for name, value in tree.items()
    )
