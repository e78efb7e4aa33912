"""The times to try again, to warn the sender, to give up.

All is decided by a message's age and never by a count of attempts, so that a changed setting
applies to mail that already waits.  Pure: time and chance are arguments.  RFC 5321 section
4.5.4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mta.mail import Agent, Hop
from mta.settings import Peer, Queue

JITTER = 0.1  # share of a delay by which chance lengthens or shortens it


@dataclass(frozen=True, slots=True)
class Schedule:
    """The settings of the queue and of the peers, as times.

    `random` gives numbers from 0 up to 1.  `arrived`, `now` and all results are in seconds since
    the epoch unless they say otherwise.
    """

    settings: Queue
    peers: Mapping[str, Peer]
    random: Callable[[], float]

    def retry_due(
        self, hop: Hop, attempts: int, arrived: float, now: float, *, warned: bool
    ) -> float:
        """The time to try again, never past the last chance."""
        delays = self.settings.retry
        delay = delays[min(max(attempts, 1), len(delays)) - 1]
        delay *= 1 + JITTER * (2 * self.random() - 1)
        return self._not_too_late(now + delay, hop, arrived, now, warned)

    def resume_due(
        self, hop: Hop, wait: float, arrived: float, now: float, *, warned: bool
    ) -> float:
        """The time to try what waits untried, for `wait` seconds at least."""
        due = now + wait * (1 + JITTER * self.random())
        return self._not_too_late(due, hop, arrived, now, warned)

    def held_due(self, hop: Hop, arrived: float, warned: bool) -> float:
        """The time to warn the sender of held mail, or give up."""
        warning = self._warn_after(hop)
        if warning and not warned:
            return min(arrived + warning, self.expires(hop, arrived))
        return self.expires(hop, arrived)

    def expires(self, hop: Hop, arrived: float) -> float:
        """The time at which mail for this hop is given up."""
        if hop.agent is Agent.HOLD:
            return arrived + self._peer(hop).hold_for
        return arrived + self.settings.give_up_after

    def must_warn(self, hop: Hop, arrived: float, now: float) -> bool:
        """Tell whether the sender should know how long mail waits."""
        warning = self._warn_after(hop)
        return warning > 0 and now >= arrived + warning

    def _not_too_late(
        self, due: float, hop: Hop, arrived: float, now: float, warned: bool
    ) -> float:
        """The time `due`, or before that the one to tell the sender."""
        warning = arrived + self._warn_after(hop)
        if not warned and now < warning:
            due = min(due, warning)
        return min(due, self.expires(hop, arrived))

    def _warn_after(self, hop: Hop) -> float:
        """Seconds; 0: never."""
        if hop.agent is Agent.HOLD:
            return self._peer(hop).warn_after
        return self.settings.warn_after

    def _peer(self, hop: Hop) -> Peer:
        return self.peers.get(hop.next_hop) or Peer(hop.next_hop)
