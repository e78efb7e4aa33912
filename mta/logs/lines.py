"""The two forms of an event in the log: text and JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

_PLAIN = (str, int, float, bool, type(None))


def text_line(at: float, level: str, message: str) -> str:
    """An event as text: time, level and message.

    `at`: seconds since the epoch.
    """
    return f"{_time(int(at))} {level:5} {indented(message)}"


def json_line(
    at: float, level: str, namespace: str, message: str, fields: Iterable[tuple[str, Any]]
) -> str:
    """An event as JSON, with those fields that have a form there."""
    document: dict[str, Any] = {
        "time": _time(int(at)),
        "level": level,
        "system": namespace,
        "message": indented(message),
    }
    for name, value in fields:
        if not name.startswith("log_") and isinstance(value, _PLAIN) and name not in document:
            document[name] = value
    return json.dumps(document, ensure_ascii=False)


def indented(message: str) -> str:
    """The text of an event, with its second and further lines indented."""
    return message.strip().replace("\n", "\n\t")


def visible(text: str) -> str:
    """Escape, as JSON does, characters that are invisible or change others."""
    if text.isascii():  # as nearly all is; control characters were escaped before
        return text
    return "".join(
        each if each.isascii() or each.isprintable() else json.dumps(each)[1:-1] for each in text
    )


@lru_cache(maxsize=4)
def _time(second: int) -> str:
    """A second since the epoch as ISO 8601, in local time."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))
