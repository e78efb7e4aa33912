"""Edits of a YAML file that leave the rest as it was.

ruamel.yaml makes the edit: it keeps comments, quotes and order.  Lines that it would write in
another form (spaces in braces, long lists, a second indentation) are taken from the file as it
was.  An edit that can't be made so is refused, and so is one that would change more than it names.

PyYAML stays the reader of the configuration: it is faster, and places of problems are its marks.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import yaml

from mta.config.document import ConfigurationError, Problem, Value, parse
from mta.config.lines import FormLost, merged
from mta.mail import canonical_domain

DEFAULT_INDENT = 2  # columns, where the file has no mapping in another
MIN_WIDTH = 99  # columns that a new line may have, or as many as the longest line there is

REMOVED: Any = object()  # instead of a value: the key is to go

Keys = tuple[str, ...]
Edits = Mapping[Keys, Any]

_RESOLVER = yaml.resolver.Resolver()
_EMITTER = yaml.emitter.Emitter(io.StringIO())


class EditRejected(ConfigurationError):
    """An edit that makes a good configuration a bad one.

    `blamed` are the problems in lines that were edited, by the keys of each; `problems` are all.
    """

    def __init__(
        self, problems: Collection[Problem], root: Value, edited: Collection[Keys]
    ) -> None:
        super().__init__(problems)
        places = sorted((*root.member(*keys)[0].place, keys) for keys in edited)
        self.blamed: dict[Keys, Problem] = {}
        for problem in self.problems:
            # The last one that begins in its line, and not behind it.
            index = bisect_right(places, (problem.line, problem.column + 1, ())) - 1
            if index >= 0 and places[index][0] == problem.line:
                self.blamed[places[index][2]] = problem


def with_edits(text: str, root: Value, edits: Edits) -> str:
    """Return the text of a file after edits: values by keys.

    `root` is what `text` was parsed to.  A value takes the place of the one that is there, or is
    added behind the last key of its mapping; mappings on the way are made.  `REMOVED` takes a key
    away, with the comments in its lines.  In a list, a key is the number of a member; the number
    behind the last one adds another.  A mapping as a value is written in braces: one in lines of
    its own comes of an edit for each of its keys.  Raises ConfigurationError where the file has
    something else on the way, or could not keep its form.
    """
    if not edits:
        return text
    index = _Index()
    spelled = {_spelled(index, root, keys): value for keys, value in edits.items()}
    is_dos = "\r\n" in text
    written = text.replace("\r\n", "\n")
    before, after = _rewritten(written, root, spelled, _indentation(index, root, spelled))
    try:
        result = "\n".join(merged(written.split("\n"), before, after))
    except FormLost as lost:
        text = "an edit would lay out these lines anew, expected the change by hand"
        raise root.source.wrong(text, lost.line) from None
    expected = _plain(root.node)
    for keys, value in spelled.items():
        _apply(expected, keys, value if value is REMOVED else _as_read(value))
    if not _says(result, root, expected):
        raise root.wrong("an edit would change more than it names, expected the change by hand")
    return result.replace("\n", "\r\n") if is_dos else result


# --- places in the file ------------------------------------------------------------------


class _Index:
    """The members of mappings by name, each mapping looked through once."""

    def __init__(self) -> None:
        self._members: dict[int, dict[str, tuple[Value, Value]]] = {}

    def find(self, value: Value, name: str) -> tuple[Value, Value] | None:
        """Key and value of a member, in whatever form it is written.

        The key of a member of a list is the list.
        """
        if value.is_list and name.isdecimal():
            items = value.items("a list")
            return (value, items[int(name)]) if int(name) < len(items) else None
        if not value.is_mapping:
            return None
        members = self._members.get(id(value.node))
        if members is None:
            members = {}
            for key, item in value.members("a mapping"):
                members.setdefault(canonical_domain(str(key.node.value)), (key, item))
            self._members[id(value.node)] = members
        return members.get(canonical_domain(name))


def _spelled(index: _Index, root: Value, keys: Keys) -> Keys:
    """The keys as the file spells them.

    Raises ConfigurationError where something else than a mapping is on the way.
    """
    if not root.is_mapping and root.node.start_mark.index < root.node.end_mark.index:
        raise root.wrong("nothing can be added to this, expected a mapping or no value at all")
    spelled: list[str] = []
    value = root
    for name in keys:
        found = index.find(value, name)
        if found is None:
            break
        key, value = found
        spelled.append(name if key.is_list else str(key.node.value))
        if len(spelled) == len(keys):
            break
        if value.node.start_mark.index < _end(key):
            raise key.wrong(f"{name!r} stands for another mapping, expected one of its own here")
        is_place = value.is_mapping or (value.is_list and keys[len(spelled)].isdecimal())
        if not is_place and value.node.start_mark.index < value.node.end_mark.index:
            raise value.wrong("nothing can be added to this, expected a mapping or no value at all")
    return (*spelled, *keys[len(spelled) :])


def _end(key: Value) -> int:
    """The place that the value of a key can't stand before."""
    mark = key.node.start_mark if key.is_list else key.node.end_mark
    return int(mark.index)


def _plain(node: yaml.Node | None) -> Any:
    """The value of a node as text, None, lists and mappings."""
    if isinstance(node, yaml.MappingNode):
        return {_plain(key): _plain(item) for key, item in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    return None if node is None or node.tag == "tag:yaml.org,2002:null" else node.value


def _as_read(value: Any) -> Any:
    """A new value as `_plain` has it once it is read."""
    if isinstance(value, Mapping):
        return {key: _as_read(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_read(item) for item in value]
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value)


def _says(text: str, root: Value, expected: Any) -> bool:
    try:
        return bool(_plain(parse(text, root.source).node) == expected)
    except ConfigurationError:
        return False


def _indentation(index: _Index, root: Value, paths: Collection[Keys]) -> dict[str, int]:
    """The columns of indentation, of mappings where the edits are first."""
    near: Counter[int] = Counter()
    for keys in paths:
        value: Value | None = root
        for name in keys:
            found = index.find(value, name) if value else None
            value = found[1] if found else None
            near.update(_steps(*found) if found else ())
    nested = list(_nested(root))
    far = Counter(step for key, item in nested for step in _steps(key, item))
    [(mapping, _)] = (near or far or Counter([DEFAULT_INDENT])).most_common(1)
    for key, item in nested:
        if item.is_list and _is_block(item):
            column = key.node.start_mark.column
            return {
                "mapping": mapping,
                "sequence": item.node.value[0].start_mark.column - column,
                "offset": item.node.start_mark.column - column,
            }
    return {"mapping": mapping, "sequence": mapping + 2, "offset": mapping}


def _steps(key: Value, item: Value) -> Iterator[int]:
    """The indentation of a mapping in lines of its own."""
    if item.is_mapping and _is_block(item):
        yield item.node.start_mark.column - key.node.start_mark.column


def _is_block(value: Value) -> bool:
    """Tell whether a list or mapping stands in no braces."""
    node = value.node
    return isinstance(node, yaml.CollectionNode) and bool(node.value and not node.flow_style)


def _nested(value: Value) -> Iterator[tuple[Value, Value]]:
    """All keys and values of mappings in mappings, the outer ones first."""
    if value.is_mapping:
        members = value.members("a mapping")
        yield from members
        for _, item in members:
            yield from _nested(item)


# --- the edit ----------------------------------------------------------------------------


def _rewritten(
    text: str, root: Value, edits: Edits, indentation: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """The lines of the file in ruamel's form, before and after."""
    from ruamel.yaml import YAML  # which few commands need
    from ruamel.yaml.error import YAMLError

    editor = YAML()
    editor.preserve_quotes = True
    editor.width = max(MIN_WIDTH, *map(len, text.split("\n")))
    editor.indent(**indentation)

    def lines(document: Any) -> list[str]:
        stream = io.StringIO()
        editor.dump(document, stream)
        return stream.getvalue().split("\n")

    try:
        document = _loaded(editor, text, root)
        before = lines(document)
        for keys, value in edits.items():
            new = value if value is REMOVED else _to_write(value)
            _apply(document, [_to_write(key) for key in keys], new)
        return before, lines(document)
    except (YAMLError, ValueError) as error:  # a date that is none, for one
        reason = getattr(error, "problem", "") or str(error).partition("\n")[0]
        raise root.wrong(f"can't be edited, expected the change by hand: {reason}") from None


def _loaded(editor: Any, text: str, root: Value) -> Any:
    try:
        return editor.load(text)
    except TypeError:  # ruamel looks the key up, and can't hash what is in it
        words = "can't be edited, expected the change by hand: a key is a mapping"
        raise root.wrong(words) from None


def _to_write(value: Any) -> Any:
    """A new value for ruamel to write: in braces, quoted where needed.

    A list of mappings has a line for each.
    """
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import SingleQuotedScalarString

    if isinstance(value, str):
        return value if _is_plain(value) else SingleQuotedScalarString(value)
    written: CommentedMap | CommentedSeq
    if isinstance(value, Mapping):
        written = CommentedMap((_to_write(key), _to_write(item)) for key, item in value.items())
    elif isinstance(value, list):
        written = CommentedSeq(_to_write(item) for item in value)
    else:
        return value
    if not (isinstance(value, list) and any(isinstance(item, Mapping) for item in value)):
        written.fa.set_flow_style()
    return written


def _is_plain(text: str) -> bool:
    """Tell whether PyYAML reads a text as such, without quotes."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    return tag == "tag:yaml.org,2002:str" and bool(_EMITTER.analyze_scalar(text).allow_flow_plain)


def _apply(document: Any, keys: Sequence[str], value: Any) -> None:
    """Put a value into nested mappings, or take one away."""
    *way, last = keys
    for key in way:
        if isinstance(document, list):
            document = document[int(key)]
            continue
        if document.get(key) is None:
            if value is REMOVED:
                return
            document[key] = type(document)()
        document = document[key]
    if isinstance(document, list):
        number = int(last)
        document[number : number + 1] = [] if value is REMOVED else [value]
    elif value is REMOVED:
        document.pop(last, None)
    else:
        document[last] = value
