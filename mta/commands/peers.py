"""``mta peers``: the hosts that we change roles with."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
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
from mta.commands.peer_details import WIDTH, details, lines, nodes_with_link, wrapped
from mta.commands.peer_statuses import peer_statuses
from mta.pairing.mailboxes import MailboxFiles
from mta.peers.node_states import PeerOnNode, joined, newest_link
from mta.peers.status_files import PeerStatus
from mta.queued import Filter
from mta.session import LinkKind
from mta.settings import Peer, Settings

if TYPE_CHECKING:
    from mta.commands.console import Subparsers
    from mta.spool.interfaces import ITools

_FORMAT = "{name:20}  {role:8}  {link:>8}  {waiting:>7}  {last:>13}  {error}"
_FORMAT_ON_NODES = _FORMAT.replace("{waiting", "{node:12}  {waiting")
_HEADINGS = {
    "name": "PEER",
    "role": "WE ARE",
    "link": "LINK FOR",
    "node": "AT NODE",
    "waiting": "WAITING",
    "last": "LAST EXCHANGE",
    "error": "LAST ERROR",
}


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
        form = _FORMAT_ON_NODES if settings.database else _FORMAT
        print(form.format(**_HEADINGS).rstrip() if peers else "no peers")
    with spool_of(settings) if has_spool(settings) else nullcontext() as tools:
        statuses = peer_statuses(settings)
        for peer in peers:
            status, document = _looked_up(peer, settings, statuses.on_nodes(peer.name), tools)
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
    peer: Peer, settings: Settings, on_nodes: Sequence[PeerOnNode], tools: ITools | None
) -> tuple[PeerStatus, dict[str, Any]]:
    """The status of a peer, and all that is known of it."""
    status = joined(on_nodes)
    since, second = (newest_link(on_nodes, kind) for kind in (LinkKind.MAIN, LinkKind.QUICK))
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
        **_nodes(on_nodes),
    }


def _nodes(on_nodes: Sequence[PeerOnNode]) -> dict[str, Any]:
    """The key for the nodes; none where the spool is a folder."""
    if not on_nodes[0].node:
        return {}
    return {
        "nodes": [
            {
                "node": each.node,
                "link_since": _shown(each.links.get(LinkKind.MAIN)),
                "second_link_since": _shown(each.links.get(LinkKind.QUICK)),
                "last_exchange": _shown(each.status.last_exchange),
            }
            for each in on_nodes
        ]
    }


def _shown(at: float | None) -> str | None:
    return moment(at) if at else None


def _moment(name: str, key: str, at: float | None) -> dict[str, Any]:
    """The keys for a time, and for how long ago it was."""
    return {
        key: _shown(at),
        f"{name}_seconds": round(time.time() - at) if at else None,
    }


def _mailboxes(peer: Peer, spool: Path) -> int | None:
    """The number of mailboxes that a peer told, if that is known."""
    try:
        told = MailboxFiles(spool).known(peer.name, peer.domains)
    except OSError:
        return None
    return sum(len(each.names or ()) for each in told.values()) if told else None


def _short(document: dict[str, Any]) -> Iterator[str]:
    """One line, or more on a terminal or for an obstacle."""
    link, last = document["link_seconds"], document["last_exchange_seconds"]
    error = printable(document["last_error"])
    values = {
        "name": document["name"],
        "role": document["role"],
        "link": "-" if link is None else duration(link),
        "waiting": document["waiting"],
        "last": "-" if last is None else f"{duration(last)} ago",
    }
    form = _FORMAT
    if "nodes" in document:
        form = _FORMAT_ON_NODES
        values["node"] = printable(nodes_with_link(document)) or "-"
    line = form.format(**values, error=error).rstrip()
    if len(line) <= WIDTH or not sys.stdout.isatty():
        yield line
    else:
        yield form.format(**values, error="").rstrip()
        yield from wrapped(error, " " * 4)
    if document["obstacle"]:
        yield from wrapped(printable(document["obstacle"]), " " * 22)
