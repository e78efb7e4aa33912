"""How things are with the peers that mail is held for, in words."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from mta.commands.console import duration, printable
from mta.peers.status_files import PeerStatus, PeerStatusFiles
from mta.settings import Peer, Settings


def situations(settings: Settings) -> Callable[[str], str]:
    """How things are with a peer that mail is held for, in words, looked up once."""
    files = PeerStatusFiles(Path(settings.spool))

    @cache
    def situation(name: str) -> str:
        peer = settings.peers.get(name)
        if peer is None:
            return "which is no longer one of the `peers`"
        if files.link_since(name) is not None:
            return "whose link stands"
        return _while_apart(peer, files.read(name), time.time())

    return situation


def _while_apart(peer: Peer, status: PeerStatus, now: float) -> str:
    """What is known of a peer without a link."""
    last = "never yet"
    if status.last_exchange:
        last = f"{duration(now - status.last_exchange)} ago"
    if peer.connect is None:
        return f"which has no link (last exchange: {last})"
    if not status.last_error:
        return f"for the next exchange (the last one: {last})"
    since = "" if status.failing_since is None else f" for {duration(now - status.failing_since)}"
    wait = (status.next_try or now) - now
    next_try = f"; next try in {duration(wait)}" if wait > 0 else ""
    return f"not reached{since}: {printable(status.last_error)}{next_try}"
