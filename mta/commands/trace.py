"""``mta trace``: the life of one message, from the log."""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mta.commands import journal
from mta.commands.console import (
    Failed,
    add_command,
    add_json,
    is_file,
    print_json,
    printable,
    settings_of,
)
from mta.spool.queue_id import arrival, decode

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

CLOCK_STEP = 3600.0  # seconds that the clock may have been put back since

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
    is_file(
        parser.add_argument(
            "--log",
            action="append",
            metavar="FILE",
            help="a log, as text or as JSON, compressed or not; - is standard input (default:"
            " log.file of the configuration, and what was rotated beside it, else the journal of"
            " mta.service)",
        )
    )
    add_json(parser)


def _run(arguments: argparse.Namespace) -> None:
    events = list(_found(arguments))
    for event in sorted(events, key=lambda event: str(event["time"])):
        if arguments.json:
            print_json(event)
        else:
            first, *more = str(event["message"]).splitlines()
            print(printable(f"{event['time']} {event['level']:5} {first}".strip()))
            for line in more:
                print("    " + printable(line.strip("\t")))


def _found(arguments: argparse.Namespace) -> Sequence[Mapping[str, Any]]:
    """The events of the message, from the logs that are meant.  Raises Failed or OSError."""
    paths = arguments.log or _configured(arguments)
    if paths:
        events = [event for path in paths for event in _in_file(path, arguments.id)]
        missing = f"{arguments.id} is not in the log"
    else:
        events = list(_in_journal(arguments.id))
        missing = (
            f"which log?  {arguments.id} is not in the journal of {journal.UNIT}, as far as this"
            " user may read it: name a log with --log FILE, or set `log.file`"
        )
    if not events:
        raise Failed(missing)
    return events


def _configured(arguments: argparse.Namespace) -> Sequence[str]:
    """The paths of ``log.file`` and of its predecessors, the oldest first."""
    log = settings_of(arguments, keep_root=True).log.file
    if not log:
        return []
    found = [path for path in Path(log).parent.glob(f"{Path(log).name}*") if path.is_file()]
    return [str(path) for path in sorted(found, key=lambda path: path.stat().st_mtime)] or [log]


def _in_file(path: str, queue_id: str) -> Iterator[Mapping[str, Any]]:
    """The events in a log that name a message.  Raises OSError."""
    try:
        with _opened(path) as stream:
            yield from _events(stream, queue_id)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        print(f"mta: {path} is damaged: it can't be read to its end", file=sys.stderr)


def _in_journal(queue_id: str) -> Iterator[Mapping[str, Any]]:
    """The events in the journal that name a message.

    They can't be older than the message.
    """
    try:
        since = arrival(decode(queue_id)) - CLOCK_STEP
    except ValueError:
        return
    with suppress(FileNotFoundError):
        yield from _events(journal.lines(since), queue_id)


def _events(lines: Iterable[str], queue_id: str) -> Iterator[Mapping[str, Any]]:
    name = re.compile(rf"\b{re.escape(queue_id)}\b")
    return (_event(text) for text in _whole(lines) if name.search(text))


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
