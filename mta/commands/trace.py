"""``mta trace``: the life of one message, from the log."""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mta.commands.console import (
    Failed,
    add_command,
    add_json,
    print_json,
    printable,
    settings_of,
)

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

# What stands before it was put there by a system log.
_TEXT = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT[0-9:.]+\S*) (?P<level>debug|info|warn|error|critical) +"
    r"(?P<message>.*)",
    re.DOTALL,
)


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(subparsers, "trace", _run, "follow one message through the log")
    parser.add_argument("id", metavar="ID", type=str.upper)
    parser.add_argument(
        "--log",
        action="append",
        metavar="FILE",
        help="a log, as text or as JSON, compressed or not; - is standard input (default: log.file"
        " of the configuration, and what was rotated beside it)",
    )
    add_json(parser)


def _run(arguments: argparse.Namespace) -> None:
    events = [event for path in _paths(arguments) for event in _events(path, arguments.id)]
    if not events:
        raise Failed(f"{arguments.id} is not in the log")
    for event in sorted(events, key=lambda event: str(event["time"])):
        if arguments.json:
            print_json(event)
        else:
            first, *more = str(event["message"]).splitlines()
            print(printable(f"{event['time']} {event['level']:5} {first}".strip()))
            for line in more:
                print("    " + printable(line.strip("\t")))


def _paths(arguments: argparse.Namespace) -> Sequence[str]:
    """The logs to read, the oldest first where we choose them."""
    if arguments.log:
        return list(arguments.log)
    log = settings_of(arguments, keep_root=True).log.file
    if not log:
        raise Failed("which log?  Name it with --log FILE, or set `log.file`")
    found = [path for path in Path(log).parent.glob(f"{Path(log).name}*") if path.is_file()]
    return [str(path) for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def _events(path: str, queue_id: str) -> Iterator[Mapping[str, Any]]:
    """The events in a log that name a message.  Raises OSError."""
    name = re.compile(rf"\b{re.escape(queue_id)}\b")
    try:
        with _opened(path) as stream:
            for text in _whole(stream):
                if name.search(text):
                    yield _event(text)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        print(f"mta: {path} is damaged: it can't be read to its end", file=sys.stderr)


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    if path == "-":
        yield sys.stdin
    elif path.endswith(".gz"):
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as stream:
            yield stream
    else:
        with Path(path).open(encoding="utf-8", errors="replace") as stream:
            yield stream


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """Lines with the indented ones that belong to them."""
    whole = ""
    for line in lines:
        if line.startswith("\t"):
            whole += line
            continue
        if whole:
            yield whole.rstrip("\n")
        whole = line
    if whole:
        yield whole.rstrip("\n")


def _event(text: str) -> Mapping[str, Any]:
    """An event, with ``time``, ``level`` and ``message`` at least."""
    brace = text.find("{")
    if brace >= 0:
        try:
            fields = json.loads(text[brace:])
        except ValueError:
            fields = None
        if isinstance(fields, dict) and {"time", "level", "message"} <= fields.keys():
            return fields
    match = _TEXT.search(text)
    return match.groupdict() if match else {"time": "", "level": "", "message": text}
