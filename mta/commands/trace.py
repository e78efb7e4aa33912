"""``mta trace``: the life of one message, from the log."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from mta.commands import journal
from mta.commands.console import Failed, add_command, add_json, is_file, settings_of
from mta.commands.known import is_known
from mta.commands.log_columns import Columns
from mta.commands.log_sources import configured, in_journal, lines_in
from mta.logs.entries import Entry, Selection, Wanted, entries
from mta.spool.queue_id import arrival, decode

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

CLOCK_STEP = 3600.0  # seconds that the clock may have been put back since


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(subparsers, "trace", _run, "follow one message through the log")
    is_known(parser.add_argument("id", metavar="ID", type=str.upper), "ids")
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
    found = _found(arguments)
    columns = Columns(in_json=arguments.json, has_ids=False)
    for entry in sorted(found, key=lambda entry: entry.time):
        columns.show(entry)


def _found(arguments: argparse.Namespace) -> Sequence[Entry]:
    """The entries of the message, from the logs that are meant.  Raises Failed or OSError."""
    paths = arguments.log or configured(settings_of(arguments, keep_root=True))
    if paths:
        lines: Iterable[str] = chain.from_iterable(map(lines_in, paths))
        missing = f"{arguments.id} is not in the log"
    else:
        lines = in_journal(_since(arguments.id))
        missing = (
            f"which log?  {arguments.id} is not in the journal of {journal.UNIT}, as far as this"
            " user may read it: name a log with --log FILE, or set `log.file`"
        )
    selection = Selection(Wanted(queue_id=arguments.id))
    found = [entry for entry in entries(lines) if selection.has(entry)]
    if not found:
        raise Failed(missing)
    return found


def _since(queue_id: str) -> float:
    """The earliest moment of a message, in seconds since the epoch."""
    try:
        return arrival(decode(queue_id)) - CLOCK_STEP
    except ValueError:
        raise Failed(f"{queue_id} is no queue id: `mta queue list` shows them") from None
