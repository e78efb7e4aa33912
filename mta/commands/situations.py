"""How things are with the peers that mail is held for, in words."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from mta.commands.console import duration, printable
from mta.peers.records import Record, Records
from mta.settings import Peer, Settings


def situations(settings: Settings) -> Callable[[str], str]:
    """How things are with a peer that mail is held for, in words, looked up once."""
    records = Records(Path(settings.spool))

    @cache
    def situation(name: str) -> str:
        peer = settings.peers.get(name)
        if peer is None:
            return "which is no longer one of the `peers`"
        if records.link_since(name) is not None:
            return "whose link stands"
        return _while_apart(peer, records.read(name), time.time())

    return situation


def _while_apart(peer: Peer, record: Record, now: float) -> str:
    """What is known of a peer without a link."""
    last = "never yet"
    if record.last_exchange:
        last = f"{duration(now - record.last_exchange)} ago"
    if peer.connect is None:
        return f"which has no link (last exchange: {last})"
    if not record.last_error:
        return f"for the next exchange (the last one: {last})"
    since = "" if record.failing_since is None else f" for {duration(now - record.failing_since)}"
    wait = (record.next_try or now) - now
    next_try = f"; next try in {duration(wait)}" if wait > 0 else ""
    return f"not reached{since}: {printable(record.last_error)}{next_try}"
