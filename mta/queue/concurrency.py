"""The places for sessions, and the destinations that wait for one.

A place is a session that counts against `queue.concurrency`.  Hosts that accept our connections
and say nothing must take none from those that work, and a stranger with a wildcard in the DNS has
as many hosts as he likes.  So a part of the places is for hops that took mail before, and notices
and hops that were down have a part of the rest.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from enum import Enum

from mta.mail import NULL_PATH, Agent, Hop
from mta.queue.back_off import BackOffs
from mta.queue.delivery_session import DeliverySession
from mta.queue.destination import Destination

MAX_PROVEN = 10_000  # hops remembered; the one that took mail longest ago is forgotten first


class HopKind(Enum):
    """The kind of hop that a session goes to."""

    PROVEN = "proven"  # took mail when it was last tried, or is in the configuration
    NEW = "new"
    NOTICES = "notices"  # new, and all that waits for it has a null reverse-path
    DOWN = "down"  # could not be reached when it was last tried


class ProvenHops:
    """The hops that took mail when they were last tried."""

    def __init__(self) -> None:
        self._hops: OrderedDict[Hop, None] = OrderedDict()

    def __contains__(self, hop: Hop) -> bool:
        """Tell whether a hop is proven.

        One that the configuration names always is.
        """
        return hop.agent is not Agent.MX or hop in self._hops

    def took_mail(self, hop: Hop) -> None:
        """Remember that a hop has shown that it works."""
        if hop.agent is Agent.MX:
            self._hops[hop] = None
            self._hops.move_to_end(hop)
            if len(self._hops) > MAX_PROVEN:
                self._hops.popitem(last=False)

    def failed(self, hop: Hop) -> None:
        """Forget a hop: it has to show again that it works."""
        self._hops.pop(hop, None)


class Concurrency:
    """Gives places to sessions, in the order in which they are wanted.

    A kind of hop that has all of its part of them waits.  `max_places` is how many there are.
    Destinations whose agents wait for no other host need none, and are always the next ones.
    """

    max_places: int

    def __init__(self, down: BackOffs) -> None:
        self._down = down
        self._proven = ProvenHops()
        self._places: dict[DeliverySession, HopKind] = {}
        self._taken: Counter[HopKind] = Counter()
        self._local_line: deque[Destination] = deque()
        self._lines: dict[HopKind, deque[tuple[int, Destination]]] = {
            kind: deque() for kind in HopKind
        }
        self._waiting = 0  # in all lines but the local one
        self._came = 0

    # --- destinations that want a session

    def line_up(self, destination: Destination) -> None:
        """Let a destination wait behind the others of its kind."""
        destination.in_line = True
        if destination.is_local:
            self._local_line.append(destination)
            return
        self._came += 1
        self._waiting += 1
        self._lines[self._kind(destination)].append((self._came, destination))

    def next(self) -> Destination | None:
        """Take the destination that can have a session now."""
        if self._local_line:
            destination = self._local_line.popleft()
        elif not self._waiting:
            return None
        else:
            able = [line for kind, line in self._lines.items() if line and self._has_room(kind)]
            if not able:
                return None
            _, destination = min(able, key=lambda line: line[0][0]).popleft()
            self._waiting -= 1
        destination.in_line = False
        return destination

    @property
    def is_scarce(self) -> bool:
        """Tell whether destinations wait for a place."""
        return self._waiting > 0

    def must_yield(self, destination: Destination) -> bool:
        """Tell whether a session should leave its place to another destination."""
        if destination.is_local or self._waiting <= destination.in_line:
            return False
        return not self._has_room(self._kind(destination))

    # --- the places of sessions

    def take_place(self, session: DeliverySession) -> None:
        """Give a session a place."""
        if not session.destination.is_local:
            self._put(session, self._kind(session.destination))

    def leave_place(self, session: DeliverySession) -> None:
        """Take the place of a session back, if it has one."""
        kind = self._places.pop(session, None)
        if kind is not None:
            self._taken[kind] -= 1

    def took_mail(self, session: DeliverySession) -> None:
        """Count the hop of a session among the proven ones."""
        self._proven.took_mail(session.destination.hop)
        if session in self._places:
            self._put(session, HopKind.PROVEN)

    def failed(self, hop: Hop) -> None:
        """Let a hop prove itself again."""
        self._proven.failed(hop)

    def _put(self, session: DeliverySession, kind: HopKind) -> None:
        if self._places.get(session) is kind:
            return
        self.leave_place(session)
        self._places[session] = kind
        self._taken[kind] += 1

    def _has_room(self, kind: HopKind) -> bool:
        """Tell whether one more session of a kind may have a place."""
        taken, places = len(self._places), self.max_places
        if taken >= places or self._taken[kind] >= self._max_places_of(kind):
            return False
        unproven = taken - self._taken[HopKind.PROVEN]
        return kind is HopKind.PROVEN or unproven < max(1, places - places // 4)

    def _max_places_of(self, kind: HopKind) -> int:
        match kind:
            case HopKind.PROVEN:
                return self.max_places
            case HopKind.NEW:
                return self.max_places - self.max_places // 4
            case _:
                return max(1, self.max_places // 4)

    def _kind(self, destination: Destination) -> HopKind:
        """The kind of hop that a destination is at this time."""
        hop, waiting = destination.hop, destination.waiting
        if hop in self._down and hop.agent is Agent.MX:
            return HopKind.DOWN
        if hop in self._proven:
            return HopKind.PROVEN
        has_notices_alone = not waiting or waiting.has_only(NULL_PATH)
        return HopKind.NOTICES if has_notices_alone else HopKind.NEW
