"""The turned connections of peers that stand in this process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mta.peer_settings import Peer, Verify
from mta.peers.announcements import Announcements
from mta.session import LinkKind

if TYPE_CHECKING:
    from mta.peers.turned_sender import TurnedSender


class StandingLinks:
    """The links of all peers, by peer and kind.  They outlive a configuration.

    `not_opening`: the peers whose sealed mail waits, as they do not offer to open it.  Links of
    peers that are asked about their mailboxes, or have mail passed through, are announced to other
    processes.
    """

    def __init__(self, announcements: Announcements | None = None) -> None:
        self.not_opening: set[str] = set()
        self.announcements = announcements
        self._links: defaultdict[tuple[str, LinkKind], list[TurnedSender]] = defaultdict(list)

    def of(self, peer: str, kind: LinkKind) -> Sequence[TurnedSender]:
        """The links of a peer of that kind, the newest last."""
        return self._links.get((peer, kind), ())

    def newest(self, peer: str, kind: LinkKind) -> TurnedSender | None:
        """The link of that kind which is in use, where one stands."""
        links = self.of(peer, kind)
        return links[-1] if links else None

    def has(self, peer: str) -> bool:
        """Tell whether any link of a peer stands here."""
        return any((peer, kind) in self._links for kind in LinkKind)

    @contextmanager
    def standing(self, peer: Peer, kind: LinkKind, link: TurnedSender) -> Iterator[None]:
        """Know of a link while this lasts.  It takes over from older ones."""
        links = self._links[peer.name, kind]
        for older in links:
            older.overtaken()
        links.append(link)
        is_wanted = peer.verify is Verify.LIVE or peer.pass_through
        if self.announcements is not None and is_wanted:
            self.announcements.begin(peer.name)
        try:
            yield
        finally:
            links.remove(link)
            if not links:
                del self._links[peer.name, kind]
            if self.announcements is not None and not self.has(peer.name):
                self.announcements.end(peer.name)
