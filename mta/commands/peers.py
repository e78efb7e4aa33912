"""``mta peers``: the hosts that we change roles with."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mta.commands import bans, known
from mta.commands.console import (
    Failed,
    add_command,
    add_json,
    duration,
    has_spool,
    moment,
    print_json,
    printable,
    settings_of,
    spool_of,
)
from mta.commands.peer_details import WIDTH, details, lines, wrapped
from mta.pairing.mailboxes import MailboxFiles
from mta.peers.status_files import PeerStatus, PeerStatusFiles
from mta.queued import Filter
from mta.session import LinkKind
from mta.settings import Peer, Settings

if TYPE_CHECKING:
    from mta.commands.console import Subparsers
    from mta.spool.interfaces import ITools

_FORMAT = "{:20}  {:8}  {:>8}  {:>7}  {:>13}  {}"


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = add_command(subparsers, "peers", _run, "list the hosts that we change roles with")
    add_json(parser)
    named = parser.add_argument("name", nargs="?", metavar="PEER", help="all that is known of one")
    known.is_known(named, "peers")


def _run(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments)
    peers = _wanted(settings, arguments.name)
    if not (arguments.json or arguments.name):
        print(
            _FORMAT.format("PEER", "WE ARE", "LINK FOR", "WAITING", "LAST EXCHANGE", "LAST ERROR")
            if peers
            else "no peers"
        )
    with spool_of(settings) if has_spool(settings) else nullcontext() as tools:
        for peer in peers:
            status, document = _looked_up(peer, settings, tools)
            found = bans.of_user(settings, peer.user) if peer.user else ()
            if arguments.json:
                print_json(document | bans.key(found))
                continue
            of_peer = lines(peer, status, document) if arguments.name else _short(document)
            for line in of_peer:
                print(line)
            for ban in found:
                print(f"{'':20}  {bans.line(ban)}")


def _wanted(settings: Settings, name: str | None) -> list[Peer]:
    if name is None:
        return list(settings.peers.values())
    if name not in settings.peers:
        raise Failed(
            f"no peer is called {name!r}; there are: {', '.join(settings.peers) or 'none'}"
        )
    return [settings.peers[name]]


def _looked_up(
    peer: Peer, settings: Settings, tools: ITools | None
) -> tuple[PeerStatus, dict[str, Any]]:
    """The status of a peer, and all that is known of it."""
    files = PeerStatusFiles(Path(settings.spool))
    status, since = files.read(peer.name), files.link_since(peer.name)
    second = files.link_since(peer.name, LinkKind.QUICK)
    waiting = tools.count_held(peer.name) if tools else 0
    first = next(tools.listed(Filter(peer=peer.name)), None) if tools and waiting else None
    oldest = first.arrived if first else None
    return status, {
        "name": peer.name,
        "role": "customer" if peer.connect else "provider",
        **_moment("link", "link_since", since),
        **_moment("second_link", "second_link_since", second),
        "waiting": waiting,
        **_moment("oldest", "oldest", oldest),
        **_moment("last_exchange", "last_exchange", status.last_exchange),
        # An error of before the link stood would look like today's.
        "last_error": "" if since and since > (status.error_at or 0.0) else status.last_error,
        "sent": status.sent,
        "received": status.received,
        "mailboxes": _mailboxes(peer, Path(settings.spool)),
        "sealed": bool(peer.seal),
        **details(status),
    }


def _moment(name: str, key: str, at: float | None) -> dict[str, Any]:
    """The keys for a time, and for how long ago it was."""
    return {
        key: moment(at) if at else None,
        f"{name}_seconds": round(time.time() - at) if at else None,
    }


def _mailboxes(peer: Peer, spool: Path) -> int | None:
    """The number of mailboxes that a peer told, if it did."""
    told = MailboxFiles(spool).known(peer.name, peer.domains)
    return sum(len(each.names or ()) for each in told.values()) if told else None


def _short(document: dict[str, Any]) -> Iterator[str]:
    """One line, or more on a terminal or for an obstacle."""
    link, last = document["link_seconds"], document["last_exchange_seconds"]
    error = printable(document["last_error"])
    values = (
        document["name"],
        document["role"],
        "-" if link is None else duration(link),
        document["waiting"],
        "-" if last is None else f"{duration(last)} ago",
    )
    line = _FORMAT.format(*values, error).rstrip()
    if len(line) <= WIDTH or not sys.stdout.isatty():
        yield line
    else:
        yield _FORMAT.format(*values, "").rstrip()
        yield from wrapped(error, " " * 4)
    if document["obstacle"]:
        yield from wrapped(printable(document["obstacle"]), " " * 22)
