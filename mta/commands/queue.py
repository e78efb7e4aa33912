"""``mta queue``: the messages that wait, and what to do with them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mta.commands import messages
from mta.commands.console import (
    Failed,
    add_command,
    add_group,
    add_json,
    print_json,
    seconds,
    settings_of,
)
from mta.interfaces import Entry, Filter
from mta.spool.tools import SpoolTools

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

_PORTION = 500  # messages changed at once

_CHANGES = (
    ("hold", SpoolTools.hold, "held", "keep messages until they are released"),
    ("release", SpoolTools.release, "released", "let held messages go on"),
    ("retry", SpoolTools.retry, "due now", "try messages now"),
    ("delete", SpoolTools.delete, "deleted", "remove messages without a notice"),
)


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    group = add_group(subparsers, "queue", "look at queued messages and change them")
    listing = add_command(group, "list", _list, "list queued messages, oldest first")
    _add_filter(listing)
    add_json(listing)
    show = add_command(group, "show", _show, "show everything known of one message")
    show.add_argument("id", metavar="ID", type=str.upper)
    show.add_argument("--content", action="store_true", help="show its content, too")
    add_json(show)
    for name, change, done, summary in _CHANGES:
        parser = add_command(group, name, _change, summary)
        _add_filter(parser)
        parser.add_argument("--dry-run", action="store_true", help="only list what is meant")
        add_json(parser)
        parser.set_defaults(change=change, done=done, action=name, usage_error=parser.error)


def _add_filter(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which messages", "All that fit every part that is given.")
    group.add_argument("ids", metavar="ID", nargs="*", type=str.upper)
    group.add_argument("--all", action="store_true", help="all messages")
    group.add_argument("--from", dest="reverse_path", default="", metavar="A", help="reverse-path")
    group.add_argument("--to", dest="forward_path", default="", metavar="A", help="forward-path")
    group.add_argument("--domain", default="", metavar="D", help="to an address in this domain")
    group.add_argument("--peer", default="", metavar="P", help="held for this peer")
    group.add_argument(
        "--older", type=seconds, default=0.0, metavar="AGE", help="arrived before: 90s, 5m, 4h, 5d"
    )
    group.add_argument("--state", default="", choices=("active", "waiting", "held"))


def _filter(arguments: argparse.Namespace) -> Filter:
    return Filter(
        ids=frozenset(arguments.ids),
        reverse_path=arguments.reverse_path.strip("<>"),
        forward_path=arguments.forward_path.strip("<>"),
        domain=arguments.domain,
        peer=arguments.peer,
        older=arguments.older,
        state=arguments.state,
    )


def _tools(arguments: argparse.Namespace) -> closing[SpoolTools]:
    return closing(SpoolTools(Path(settings_of(arguments).spool)))


def _list(arguments: argparse.Namespace) -> None:
    wanted = _filter(arguments)
    with _tools(arguments) as tools:
        found = _print_list(tools.find(wanted), in_json=arguments.json)
    _complain_of_missing(wanted.ids - found if wanted.ids else frozenset())


def _show(arguments: argparse.Namespace) -> None:
    with _tools(arguments) as tools:
        entry = next(iter(tools.find(Filter(ids=frozenset({arguments.id})))), None)
        if entry is None:
            raise Failed(f"no message {arguments.id} in the queue")
        if arguments.json:
            print_json(messages.document(entry, time.time(), content=arguments.content))
            return
        print(messages.page(entry, time.time()))
        if arguments.content:
            messages.print_content(entry.message)


def _change(arguments: argparse.Namespace) -> None:
    wanted = _filter(arguments)
    if wanted == Filter() and not arguments.all:
        arguments.usage_error("which messages?  Name them, or use a filter or --all")
    found: set[str] = set()
    changed = 0
    with _tools(arguments) as tools:
        if arguments.dry_run:
            found = _print_list(tools.find(wanted), in_json=arguments.json)
        else:
            for portion in _portions(entry.message.id for entry in tools.find(wanted)):
                found.update(portion)
                changed += arguments.change(tools, portion)
    if not arguments.dry_run:
        _report(arguments, len(found), changed)
    _complain_of_missing(wanted.ids - found)


def _report(arguments: argparse.Namespace, found: int, changed: int) -> None:
    if arguments.json:
        print_json({"action": arguments.action, "found": found, "changed": changed})
    else:
        number = str(found) if changed == found else f"{changed} of {found}"
        print(f"{number} message{'' if found == 1 else 's'} {arguments.done}")


def _print_list(entries: Iterable[Entry], *, in_json: bool) -> set[str]:
    """Print messages as they are read; returns their ids."""
    found: set[str] = set()
    for entry in entries:
        if in_json:
            print_json(messages.summary(entry, time.time()))
        else:
            if not found:
                print(messages.HEADING)
            print(messages.lines(entry, time.time()))
        found.add(entry.message.id)
    if not found and not in_json:
        print("no messages")
    return found


def _complain_of_missing(ids: Collection[str]) -> None:
    if ids:
        raise Failed(f"not in the queue, or not what the filter says: {' '.join(sorted(ids))}")


def _portions(ids: Iterator[str]) -> Iterator[list[str]]:
    while portion := list(islice(ids, _PORTION)):
        yield portion
