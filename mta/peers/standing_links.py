"""The turned connections of peers that stand in this process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mta.session import LinkKind

if TYPE_CHECKING:
    from mta.peers.turned_sender import TurnedSender


class StandingLinks:
    """The links of all peers, by peer and kind.  They outlive a configuration.

    `not_opening`: the peers whose sealed mail waits, as they do not offer to open it.
    """

    def __init__(self) -> None:
        self.not_opening: set[str] = set()
        self._links: defaultdict[tuple[str, LinkKind], list[TurnedSender]] = defaultdict(list)

    def of(self, peer: str, kind: LinkKind) -> Sequence[TurnedSender]:
        """The links of a peer of that kind, the newest last."""
        return self._links.get((peer, kind), ())

    def newest(self, peer: str, kind: LinkKind) -> TurnedSender | None:
        """The link of that kind which is in use, where one stands."""
        links = self.of(peer, kind)
        return links[-1] if links else None

    @contextmanager
    def standing(self, peer: str, kind: LinkKind, link: TurnedSender) -> Iterator[None]:
        """Know of a link while this lasts.  It takes over from older ones."""
        links = self._links[peer, kind]
        for older in links:
            older.overtaken()
        links.append(link)
        try:
            yield
        finally:
            links.remove(link)
            if not links:
                del self._links[peer, kind]
