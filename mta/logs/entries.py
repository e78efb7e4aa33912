"""The lines of the log as entries, and filters for them.

Lines are as the server writes them, as text or as JSON; what a system log puts before them does no
harm.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

LEVELS = ("debug", "info", "warn", "error", "critical")
MAX_KNOWN = 100_000  # messages of one sender that are known again, in a log that is followed

_TEXT = re.compile(
    rf"(?P<time>\d{{4}}-\d\d-\d\dT[0-9:.]+\S*) (?P<level>{'|'.join(LEVELS)}) +(?P<message>.*)",
    re.DOTALL,
)
_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{12}(?=[ :])")
_ACCEPTED = re.compile(r"accepted <([^>]*)>")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a log.

    Time and level are as they stand there.  `fields` has all that a line of JSON has.
    """

    time: str
    level: str
    message: str
    fields: Mapping[str, Any]

    @property
    def queue_id(self) -> str:
        """The message that it is about; empty: none, or several."""
        found = _ID.match(self.message)
        return found[0] if found else ""

    @property
    def event(self) -> str:
        """The text without the queue id before it."""
        return self.message[len(self.queue_id) :].lstrip(": ")

    @property
    def at(self) -> float:
        """Seconds since the epoch; the time of no entry is infinitely late."""
        try:
            return datetime.fromisoformat(self.time).timestamp()
        except ValueError:
            return float("inf")

    def names(self, words: str) -> bool:
        """Tell whether its text has these words."""
        return bool(re.search(rf"(?<![\w.@-]){re.escape(words)}(?![\w@-])", self.message))


def entries(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries in these lines.  Indented lines belong to the one before.

    An empty text among the lines says that none comes for a while: the last entry is whole.
    """
    whole = ""
    for line in lines:
        if line.startswith("\t"):
            whole += line
            continue
        if whole:
            yield entry(whole)
        whole = line
    if whole:
        yield entry(whole)


def entry(text: str) -> Entry:
    """The entry in a line, with the indented ones behind it."""
    text = text.rstrip("\n")
    brace = text.find("{")
    if brace >= 0:
        try:
            fields = json.loads(text[brace:])
        except ValueError:
            fields = None
        if isinstance(fields, dict) and {"time", "level", "message"} <= fields.keys():
            time, level, message = (str(fields[name]) for name in ("time", "level", "message"))
            return Entry(time, level, message, fields)
    match = _TEXT.search(text)
    fields = match.groupdict() if match else {"time": "", "level": "", "message": text}
    return Entry(fields["time"], fields["level"], fields["message"], fields)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The parts of a filter: an entry fits all that are given.

    `since`: seconds since the epoch.  `level`: the lowest.
    """

    queue_id: str = ""
    peer: str = ""
    reverse_path: str | None = None
    forward_path: str = ""
    domain: str = ""
    event: str = ""
    level: str = LEVELS[0]
    since: float = 0.0


class Selection:
    """Tells of entries, in their order, whether they are wanted.

    It remembers which messages came from the sender that is asked for.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._from: OrderedDict[str, None] = OrderedDict()

    def has(self, entry: Entry) -> bool:
        """Tell whether an entry is wanted."""
        wanted = self._wanted
        return (
            self._is_from(entry)
            and _rank(entry.level) >= _rank(wanted.level)
            and (not wanted.queue_id or entry.names(wanted.queue_id))
            and (not wanted.peer or entry.names(wanted.peer))
            and (not wanted.forward_path or _has(entry, wanted.forward_path))
            and (not wanted.domain or _has(entry, f"@{wanted.domain}"))
            and (not wanted.event or _is_event(entry, wanted.event))
            and (not wanted.since or entry.at >= wanted.since)
        )

    def _is_from(self, entry: Entry) -> bool:
        wanted = self._wanted.reverse_path
        if wanted is None:
            return True
        accepted = _ACCEPTED.match(entry.event)
        if accepted and accepted[1].lower() == wanted.lower():
            self._from[entry.queue_id] = None
            if len(self._from) > MAX_KNOWN:
                self._from.popitem(last=False)
        return entry.queue_id in self._from


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else LEVELS.index("info")


def _has(entry: Entry, address: str) -> bool:
    """Tell whether an address, or the end of one, stands there."""
    before = "" if address.startswith("@") else r"(?<![\w.+@-])"
    pattern = rf"{before}{re.escape(address)}(?![\w-]|\.\w)"
    return bool(re.search(pattern, entry.message, re.IGNORECASE))


def _is_event(entry: Entry, words: str) -> bool:
    """Tell whether the words say what happened: they stand before the reason."""
    happened = entry.event.partition(": ")[0]
    return bool(re.search(rf"(?<!\w){re.escape(words)}(?!\w)", happened, re.IGNORECASE))
