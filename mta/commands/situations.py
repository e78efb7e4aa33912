"""The situation of peers that mail is held for, in words."""

from __future__ import annotations

import time
from functools import cached_property

from mta.commands.console import duration, printable
from mta.commands.peer_statuses import peer_statuses
from mta.peers.node_states import PeerStatuses
from mta.peers.status_files import PeerStatus
from mta.settings import Peer, Settings


class Situations:
    """The situations of peers, each looked up once."""

    def __init__(self, settings: Settings) -> None:
        self._peers = settings.peers
        self._settings = settings
        self._known: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The situation of a peer, as the end of a sentence."""
        if name not in self._known:
            self._known[name] = self._look_up(name)
        return self._known[name]

    def _look_up(self, name: str) -> str:
        peer = self._peers.get(name)
        if peer is None:
            return "which is no longer one of the `peers`"
        if self._statuses.link_since(name) is not None:
            return "whose link stands"
        return _while_apart(peer, self._statuses.read(name), time.time())

    @cached_property
    def _statuses(self) -> PeerStatuses:
        return peer_statuses(self._settings)


def _while_apart(peer: Peer, status: PeerStatus, now: float) -> str:
    """The situation of a peer without a link."""
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
