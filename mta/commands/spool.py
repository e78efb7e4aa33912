"""``mta spool``: checking the spool, and getting mail out of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from mta.commands.console import (
    Failed,
    add_command,
    add_group,
    add_json,
    has_spool,
    print_json,
    printable,
    settings_of,
    spool_of,
)
from mta.commands.known import is_known
from mta.commands.terminal import Bar
from mta.queued import Filter
from mta.shared_tables.copying import TableCopy
from mta.shared_tables.forms import TableSet
from mta.spool.checking import Finding
from mta.spool.copying import Copy
from mta.spool.database import SpoolUnusable
from mta.spool.folder import Folder
from mta.spool.place import SpoolPlace

if TYPE_CHECKING:
    from mta.commands.console import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    group = add_group(subparsers, "spool", "check the spool, copy it, and get mail out of it")
    check = add_command(group, "check", _check, "look through everything in the spool")
    check.add_argument(
        "--repair", action="store_true", help="mend what can be mended without losing mail"
    )
    add_json(check)
    export = add_command(group, "export", _export, "write the content of a message, as it is")
    is_known(export.add_argument("id", metavar="ID", type=str.upper), "ids")
    export.add_argument(
        "--part",
        choices=("header", "body"),
        help="this part alone; of sealed mail each is a file for `age -d`",
    )

    copy = add_command(group, "copy", _copy, "copy all mail into another spool, servers down")
    copy.add_argument("source", metavar="FROM", help="a folder, or postgresql://...")
    copy.add_argument("target", metavar="TO", help="a folder, or postgresql://...")


def _copy(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments)
    source = SpoolPlace.named(arguments.source, settings)
    target = SpoolPlace.named(arguments.target, settings)
    copy = Copy(source, target)
    copy.require_rest()
    done = 0
    with closing(source.shared_tables()) as old, closing(target.shared_tables()) as new:
        tables = TableCopy(_copied_tables(), old, new)
        with closing(Bar(copy.count() + tables.count())) as bar:
            for count in copy.portions():
                done += count
                bar.advance(count)
            for count in tables.portions():
                bar.advance(count)
    words = f"{done} message{'' if done == 1 else 's'}"
    print(f"{words} copied from {copy.source.name}, which keeps them")
    if copy.left:
        raise Failed(f"damaged, and not copied: {' '.join(copy.left)}")


def _copied_tables() -> Sequence[TableSet]:
    """The tables of what processes count and remember together.

    The states of peers and the copies of documents are left out: nodes tell them anew.
    """
    from mta.access import account_table, answer_table
    from mta.inspectors import greylist_table
    from mta.reporting import store

    return (account_table.TABLES, answer_table.TABLES, greylist_table.TABLES, store.TABLES)


def _check(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments)
    place = SpoolPlace.of(settings)
    if not has_spool(settings) and (place.database or not Folder(place.folder).traces()):
        raise Failed(f"no spool in {place.name}: the server has not run yet, or `spool` is another")
    left = 0
    try:
        for finding in place.findings(repair=arguments.repair):
            left += not finding.repaired
            _print(finding, in_json=arguments.json)
    except SpoolUnusable as error:
        left += 1
        _print(Finding("queue.sqlite", str(error)), in_json=arguments.json)
    if left:
        raise Failed(f"{left} thing{'' if left == 1 else 's'} wrong in {place.name}")


def _print(finding: Finding, *, in_json: bool) -> None:
    if in_json:
        where, problem = finding.where, finding.problem
        print_json({"where": where, "problem": problem, "repaired": finding.repaired})
    else:
        repaired = " (repaired)" if finding.repaired else ""
        print(f"{printable(finding.where)}: {printable(finding.problem)}{repaired}")


def _export(arguments: argparse.Namespace) -> None:
    from mta.commands.messages import print_part

    with spool_of(settings_of(arguments)) as tools:
        entry = next(iter(tools.find(Filter(ids=frozenset({arguments.id})))), None)
        if entry is None:
            raise Failed(f"no message {arguments.id} in the queue")
        if entry.message.envelope.sealed and not arguments.part:
            raise Failed(
                f"{arguments.id} is sealed: name a --part, header and then body, and open each by"
                " `age -d` with the key of the peer"
            )
        print_part(entry.message, arguments.part)
