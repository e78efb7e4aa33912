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
from mta.commands.peer_statuses import on_nodes
from mta.spool.nodes import NodeProcess
from mta.spool.place import SpoolPlace

if TYPE_CHECKING:
    from mta.commands.console import Subparsers


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    add_json(add_command(subparsers, "nodes", _list, "list the hosts that share the spool"))


def _list(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments)
    place = SpoolPlace.of(settings)
    if not place.database:
        raise Failed(f"the spool is the folder {place.folder}, which no other host shares")
    now, processes = time.time(), place.nodes()
    links = on_nodes(settings, processes).links(settings.peers)
    for process in processes:
        count = links[process.node] if process.is_alive else 0
        if arguments.json:
            print_json({**asdict(process), "links": count})
        else:
            print(_line(process, count, now))


def _line(process: NodeProcess, links: int, now: float) -> str:
    state = "alive" if process.is_alive else "dead"
    since = duration(now - process.began)
    name, version = printable(process.node), printable(process.version)
    work = f"{process.leased} messages, {links} links"
    return f"{name:20}  {version:10}  {state:5}  since {since:>5}  {work}"
