"""``mta nodes``: the hosts that share the spool."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from mta.commands.console import (
    Failed,
    add_command,
    add_json,
    duration,
    print_json,
    printable,
    settings_of,
)
from mta.spool.nodes import NodeProcess
from mta.spool.place import SpoolPlace

if TYPE_CHECKING:
    from mta.commands.console import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    add_json(add_command(subparsers, "nodes", _list, "list the hosts that share the spool"))


def _list(arguments: argparse.Namespace) -> None:
    place = SpoolPlace.of(settings_of(arguments))
    if not place.database:
        raise Failed(f"the spool is the folder {place.folder}, which no other host shares")
    now = time.time()
    for process in place.nodes():
        if arguments.json:
            print_json(asdict(process))
        else:
            print(_line(process, now))


def _line(process: NodeProcess, now: float) -> str:
    state = "alive" if process.is_alive else "dead"
    since = duration(now - process.began)
    name, version = printable(process.node), printable(process.version)
    return f"{name:20}  {version:10}  {state:5}  since {since:>5}  {process.leased} messages"
