"""``mta peers``: the hosts that we change roles with."""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mta.commands import bans
from mta.commands.console import (
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
from mta.pairing.mailboxes import MailboxFiles
from mta.peers.status_files import PeerStatusFiles
from mta.settings import Peer

if TYPE_CHECKING:
    from mta.commands.console import Subparsers

_FORMAT = "{:20}  {:8}  {:>8}  {:>7}  {:>13}  {}"


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    add_json(add_command(subparsers, "peers", _run, "list the hosts that we change roles with"))


def _run(arguments: argparse.Namespace) -> None:
    settings = settings_of(arguments)
    spool = Path(settings.spool)
    files = PeerStatusFiles(spool)
    if not arguments.json:
        print(
            _FORMAT.format("PEER", "WE ARE", "LINK FOR", "WAITING", "LAST EXCHANGE", "LAST ERROR")
            if settings.peers
            else "no peers"
        )
    with spool_of(settings) if has_spool(settings) else nullcontext() as tools:
        for peer in settings.peers.values():
            waiting = tools.count_held(peer.name) if tools else 0
            document = _document(peer, files, waiting, spool)
            found = bans.of_user(settings, peer.user) if peer.user else ()
            document |= bans.key(found)
            if arguments.json:
                print_json(document)
            else:
                print(_line(document))
                for ban in found:
                    print(f"{'':20}  {bans.line(ban)}")


def _document(peer: Peer, files: PeerStatusFiles, waiting: int, spool: Path) -> dict[str, Any]:
    status = files.read(peer.name)
    since = files.link_since(peer.name)
    return {
        "name": peer.name,
        "role": "customer" if peer.connect else "provider",
        "link_since": moment(since) if since else None,
        "link_seconds": round(time.time() - since) if since else None,
        "waiting": waiting,
        "last_exchange": moment(status.last_exchange) if status.last_exchange else None,
        "last_exchange_seconds": (
            round(time.time() - status.last_exchange) if status.last_exchange else None
        ),
        # An error of before the link stood would look like today's.
        "last_error": "" if since and since > (status.error_at or 0.0) else status.last_error,
        "sent": status.sent,
        "received": status.received,
        "mailboxes": _mailboxes(peer, spool),
    }


def _mailboxes(peer: Peer, spool: Path) -> int | None:
    """The number of mailboxes that a peer told, if it did."""
    known = MailboxFiles(spool).known(peer.name, peer.domains)
    return sum(len(each.names or ()) for each in known.values()) if known else None


def _line(document: dict[str, Any]) -> str:
    link, last = document["link_seconds"], document["last_exchange_seconds"]
    return _FORMAT.format(
        document["name"],
        document["role"],
        "-" if link is None else duration(link),
        document["waiting"],
        "-" if last is None else f"{duration(last)} ago",
        printable(document["last_error"]),
    ).rstrip()
