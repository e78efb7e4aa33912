"""Who may have how many of the places, so that hosts which hang take none from those that work.

A place is a visit that counts against `queue.concurrency`.  Hops that strangers can make up share
what is left beside a part for those that took mail before: whoever has a wildcard in the DNS has as
many hops as he likes, and each of them may accept our connections and say nothing.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from enum import Enum
from typing import Generic, TypeVar

from mta.mail import Agent, Hop

T = TypeVar("T")

MAX_PROVEN = 10_000  # hops remembered; who has been asked for longest is forgotten first


class Share(Enum):
    """The kind of hop that a visit goes to."""

    PROVEN = "proven"  # took mail when it was last tried, or is in the configuration
    NEW = "new"
    NOTICES = "notices"  # new, and all that waits for it has a null reverse-path
    DOWN = "down"  # could not be reached when it was last tried


def limit(share: Share, places: int) -> int:
    """How many of all places visits of one kind may have."""
    match share:
        case Share.PROVEN:
            return places
        case Share.NEW:
            return places - _reserve(places)
        case _:
            return max(1, places // 4)


def _reserve(places: int) -> int:
    """How many places are for proven hops alone."""
    return places // 4


class Places:
    """The visits that have a place, each with its share."""

    def __init__(self) -> None:
        self._shares: dict[Hashable, Share] = {}
        self._counts: Counter[Share] = Counter()

    def has_room(self, share: Share, places: int) -> bool:
        """Whether one more visit of that kind may have one of so many places."""
        taken = len(self._shares)
        if taken >= places or self._counts[share] >= limit(share, places):
            return False
        unproven = taken - self._counts[Share.PROVEN]
        return share is Share.PROVEN or unproven < max(1, places - _reserve(places))

    def take(self, visit: Hashable, share: Share) -> None:
        """Give a visit a place, or a place of another kind."""
        if self._shares.get(visit) is share:
            return
        self.leave(visit)
        self._shares[visit] = share
        self._counts[share] += 1

    def leave(self, visit: Hashable) -> None:
        """Take the place of a visit back, if it has one."""
        share = self._shares.pop(visit, None)
        if share is not None:
            self._counts[share] -= 1

    def __contains__(self, visit: Hashable) -> bool:
        """Whether a visit has a place."""
        return visit in self._shares


class ProvenHops:
    """The hops that took mail when they were last tried."""

    def __init__(self) -> None:
        self._hops: OrderedDict[Hop, None] = OrderedDict()

    def __contains__(self, hop: Hop) -> bool:
        """Whether a hop is one; what the configuration names always is."""
        return hop.agent is not Agent.MX or hop in self._hops

    def took_mail(self, hop: Hop) -> None:
        """A hop has shown that it works."""
        if hop.agent is Agent.MX:
            self._hops[hop] = None
            self._hops.move_to_end(hop)
            if len(self._hops) > MAX_PROVEN:
                self._hops.popitem(last=False)

    def failed(self, hop: Hop) -> None:
        """A hop has to show it again."""
        self._hops.pop(hop, None)


class Lines(Generic[T]):
    """Those who wait for a place, in the order in which they came, but for full shares."""

    def __init__(self) -> None:
        self._lines: dict[Share, deque[tuple[int, T]]] = {share: deque() for share in Share}
        self._came = 0

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def put(self, item: T, share: Share) -> None:
        """Let somebody wait behind the others of that kind."""
        self._came += 1
        self._lines[share].append((self._came, item))

    def take(self, places: Places, most: int) -> T | None:
        """Remove who came first of those that can have one of so many places; None: nobody can."""
        able = [
            line for share, line in self._lines.items() if line and places.has_room(share, most)
        ]
        if not able:
            return None
        _, item = min(able, key=lambda line: line[0][0]).popleft()
        return item
