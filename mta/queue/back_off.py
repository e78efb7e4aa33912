"""Back-off from hops that could not be reached, longer after each failure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from twisted.application.internet import backoffPolicy
from twisted.internet.interfaces import IReactorTime

from mta.mail import Hop, Outcome
from mta.settings import HOUR

FIRST_BACK_OFF = 30.0  # seconds that a hop is left alone after its first failure
MAX_BACK_OFF = HOUR  # seconds: a hop that is back is found within that time
MIN_WAIT = 1.0  # seconds: mail must not go round and round at the end of a back-off
MAX_REMEMBERED = 10_000  # hops that are down: strangers choose the domains of mail

_seconds_after = backoffPolicy(FIRST_BACK_OFF, MAX_BACK_OFF, factor=2.0, jitter=float)  # no jitter


@dataclass(frozen=True, slots=True)
class _BackOff:
    """The reason to leave a hop alone.  `until`: seconds of the clock."""

    failures: int
    until: float
    outcome: Outcome


class BackOffs:
    """The hops that are down: they could not be reached lately."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._down: OrderedDict[Hop, _BackOff] = OrderedDict()

    def __contains__(self, hop: Hop) -> bool:
        """Tell whether a hop is down."""
        return hop in self._down

    def __iter__(self) -> Iterator[Hop]:
        return iter(self._down)

    def __len__(self) -> int:
        return len(self._down)

    def failed(self, hop: Hop, outcome: Outcome) -> float:
        """Leave a hop alone that failed; returns for how many seconds."""
        before = self._down.pop(hop, None)
        failures = before.failures + 1 if before else 1
        seconds = _seconds_after(failures - 1)
        self._down[hop] = _BackOff(failures, self._clock.seconds() + seconds, outcome)
        if len(self._down) > MAX_REMEMBERED:
            self._down.popitem(last=False)
        return seconds

    def answered(self, hop: Hop) -> None:
        """Note that a hop is there."""
        self._down.pop(hop, None)

    def left(self, hop: Hop) -> float:
        """The seconds for which a hop is still left alone, or 0."""
        back_off = self._down.get(hop)
        return max(0.0, back_off.until - self._clock.seconds()) if back_off else 0.0

    def outcome(self, hop: Hop) -> Outcome | None:
        """The outcome of mail whose hop is left alone, if it is."""
        back_off = self._down.get(hop)
        left = self.left(hop)
        if back_off is None or left <= 0:
            return None
        reply = back_off.outcome.reply
        known = replace(reply, lines=(f"Not tried again so soon: {reply.text}",))
        return replace(back_off.outcome, reply=known, wait=max(left, MIN_WAIT))

    def probe(self) -> None:
        """Let the next message for each hop try it."""
        now = self._clock.seconds()
        for hop, back_off in self._down.items():
            self._down[hop] = replace(back_off, until=now)
