"""Entries of the log in columns and colours, on a terminal."""

from __future__ import annotations

import sys
from datetime import datetime

from mta.commands.console import print_json, printable
from mta.commands.terminal import painter
from mta.logs.entries import Entry

_COLOURS = {"debug": "blue", "warn": "yellow", "error": "red", "critical": "red"}
_NO_ID = " " * 13


class Columns:
    """Prints entries: time, level, message and event.

    What is no terminal gets the lines as they are in the log.  `has_ids`: several messages are told
    of, each by its id.
    """

    def __init__(self, *, in_json: bool, has_ids: bool = True) -> None:
        self._in_json = in_json
        self._has_ids = has_ids
        self._is_terminal = sys.stdout.isatty()
        self._paint = painter()

    def show(self, entry: Entry) -> None:
        """Print an entry."""
        if self._in_json:
            print_json(entry.fields)
            return
        first, *more = (self._event(entry) if self._is_terminal else entry.message).splitlines()
        print(f"{self._before(entry)}{printable(first)}".rstrip())
        for line in more:
            print("    " + printable(line.strip("\t")))

    def _event(self, entry: Entry) -> str:
        return (entry.event if entry.queue_id else entry.message) or " "

    def _before(self, entry: Entry) -> str:
        """The columns before the text."""
        if not self._is_terminal:
            return f"{printable(entry.time)} {entry.level:5} " if entry.time else ""
        level = self._paint(f"{entry.level:8}", _COLOURS.get(entry.level, "green"))
        id = self._paint(entry.queue_id, "bold") if entry.queue_id else _NO_ID
        return f"{_moment(entry)}  {level}  " + (f"{id}  " if self._has_ids else "")


def _moment(entry: Entry) -> str:
    try:
        return f"{datetime.fromisoformat(entry.time):%d %b %H:%M:%S}"
    except ValueError:
        return f"{printable(entry.time):15}"
