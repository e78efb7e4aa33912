"""``mta log``: what the server did, from its log, with filters."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from mta.commands.console import Failed, add_command, add_json, nonempty, seconds, settings_of
from mta.commands.known import is_known
from mta.commands.log_columns import Columns
from mta.commands.log_sources import configured, following, in_journal, lines_in
from mta.commands.terminal import pages
from mta.logs.entries import LEVELS, Entry, Selection, Wanted, entries
from mta.settings import DAY, MINUTE, Settings

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

_WORDS = (
    ("--id", "queue_id", "ID", "about this message"),
    ("--peer", "peer", "P", "that name this peer"),
    ("--from", "reverse_path", "A", "about messages with this reverse-path; '<>' for notices"),
    ("--to", "forward_path", "A", "that name this forward-path"),
    ("--domain", "domain", "D", "that name an address in this domain"),
    ("--event", "event", "WORDS", "of this kind: accepted, delivered, deferred, failed, log-in..."),
)
_KNOWN = {
    "queue_id": "ids",
    "peer": "peers",
    "event": "events",
    "forward_path": "addresses",
    "domain": "domains",
}


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(subparsers, "log", _run, "show what the server logged, with filters")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C"
    )
    parser.add_argument(
        "--since",
        type=seconds,
        metavar="AGE",
        help="begin so long ago: 90s, 5m, 4h, 5d (default: 1d, with --follow 1m)",
    )
    parser.add_argument(
        "--by-message", action="store_true", help="show the entries of each message together"
    )
    group = parser.add_argument_group("which entries", "All that fit every part that is given.")
    for option, name, letter, meaning in _WORDS:
        argument = group.add_argument(
            option, dest=name, metavar=letter, help=meaning, type=nonempty
        )
        if name in _KNOWN:
            is_known(argument, _KNOWN[name])
    group.add_argument(
        "--level", choices=LEVELS[:-1], default=LEVELS[0], help="of this level or above"
    )
    add_json(parser)
    parser.set_defaults(usage_error=parser.error)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.follow and arguments.by_message:
        arguments.usage_error("--by-message needs an end, which --follow does not have")
    settings, columns = settings_of(arguments, keep_root=True), Columns(in_json=arguments.json)
    wanted = _wanted(arguments)
    selection = Selection(wanted)
    found = filter(selection.has, _entries(settings, wanted.since, follow=arguments.follow))
    if arguments.follow:
        for entry in found:
            columns.show(entry)
            sys.stdout.flush()
        return
    first = next(found, None)
    if first is None:
        raise Failed(_nothing(settings))
    with pages():
        every = chain([first], found)
        for entry in _by_message(every) if arguments.by_message else every:
            columns.show(entry)


def _wanted(arguments: argparse.Namespace) -> Wanted:
    age = arguments.since
    if age is None:
        age = MINUTE if arguments.follow else DAY
    path = arguments.reverse_path
    return Wanted(
        queue_id=(arguments.queue_id or "").upper(),
        peer=arguments.peer or "",
        reverse_path=path and path.strip("<>"),
        forward_path=(arguments.forward_path or "").strip("<>"),
        domain=(arguments.domain or "").lstrip("@"),
        event=arguments.event or "",
        level=arguments.level,
        since=time.time() - age,
    )


def _entries(settings: Settings, since: float, *, follow: bool) -> Iterator[Entry]:
    """The entries since a moment, and maybe those that come."""
    if not settings.log.file:
        lines: Iterable[str] = in_journal(since, follow=follow)
    elif follow:
        lines = following(settings.log.file)
    else:
        lines = chain.from_iterable(map(lines_in, configured(settings, since)))
    return entries(lines)


def _by_message(found: Iterable[Entry]) -> Iterator[Entry]:
    """The entries of each message together, then those about none."""
    groups: dict[str, list[Entry]] = {}
    for entry in found:
        groups.setdefault(entry.queue_id, []).append(entry)
    others = groups.pop("", [])
    return chain(*groups.values(), others)


def _nothing(settings: Settings) -> str:
    where = settings.log.file or "the journal of mta.service, as far as this user may read it"
    return f"nothing of that kind in {where}: --since 7d looks further back"
