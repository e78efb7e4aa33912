"""The events that the program logs, found by a walk over the calls in its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tests.processes import ROOT

LEVELS = {name: name for name in ("debug", "info", "warn", "error")} | {"failure": "critical"}
NO_FIELDS = {"failure"}


@dataclass(frozen=True)
class Event:
    """An event: its text, its level and the names of its fields."""

    text: str
    level: str
    fields: frozenset[str]


def logged_events() -> Iterator[Event]:
    """The events of all calls.  An expression within a text is the word WHAT."""
    for path in sorted((ROOT / "mta").rglob("*.py")):
        if "testing" in path.parts or path.name == "limited_log.py":
            continue
        tree = ast.parse(path.read_bytes())
        named = {
            node.targets[0].id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (level := _level(node)):
                text = _text(node.args, named)
                fields = frozenset(each.arg for each in node.keywords if each.arg)
                yield Event(text, level, fields - NO_FIELDS)


def _level(call: ast.Call) -> str:
    """The level at which a call logs; empty: it doesn't."""
    if isinstance(call.func, ast.Name):
        return "info" if call.func.id == "note" else ""
    if not isinstance(call.func, ast.Attribute):
        return ""
    logger = ast.unparse(call.func.value).removesuffix("()").rpartition(".")[2]
    is_logger = logger in ("log", "_log", "_limited")
    return LEVELS.get(call.func.attr, "") if is_logger else ""


def _text(arguments: list[ast.expr], named: dict[str, ast.expr]) -> str:
    """The template among the arguments: the last text; those before it name its kind."""
    for argument in reversed(arguments):
        value = named.get(argument.id) if isinstance(argument, ast.Name) else argument
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
        if isinstance(value, ast.JoinedStr):
            return "".join(
                str(part.value) if isinstance(part, ast.Constant) else "WHAT"
                for part in value.values
            )
    raise AssertionError(f"no text: {[ast.unparse(each) for each in arguments]}")
