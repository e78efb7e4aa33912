"""How far ahead of replies the hosts take commands, as they have shown (RFC 2920).

Some that offer PIPELINING drop what follows the final dot, or answer 503 to it; some answer a chunk
that they do not want as if it were commands.  What one connection learns, the next one knows.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

MAX_HOSTS = 10_000  # remembered; the mail exchangers of others are anybody's choice
FORGET_AFTER = 3600.0  # seconds after which a host that showed too little may show more


class Pipelining(Enum):
    """What a host takes before its replies have come."""

    STEPWISE = "stepwise"  # nothing: it was out of step
    GROUPED = "grouped"  # a group of commands, and nothing behind content
    UNKNOWN = "unknown"  # the same, and more may be tried
    AHEAD = "ahead"  # the next message behind the content of the last


@dataclass(slots=True)
class HostRecord:
    """What is known of one host; `since`: seconds of some clock.

    `breaks`: the last connection ended while content was on its way whose envelope had no reply.
    """

    pipelining: Pipelining = Pipelining.UNKNOWN
    since: float = 0.0
    breaks: bool = False

    def learn(self, pipelining: Pipelining, now: float) -> None:
        """Remember what the host has shown; that it was out of step is not forgotten so soon."""
        if self.pipelining is not Pipelining.STEPWISE:
            self.pipelining = pipelining
            self.since = now
            self.breaks = False

    def is_outdated(self, now: float) -> bool:
        """Whether it is time to see whether the host does better."""
        is_poor = self.pipelining in (Pipelining.STEPWISE, Pipelining.GROUPED)
        return is_poor and now >= self.since + FORGET_AFTER

    def forget_ahead(self) -> None:
        """Let the host show again that it reads ahead, as there was trouble."""
        self.breaks = True
        if self.pipelining is Pipelining.AHEAD:
            self.pipelining = Pipelining.UNKNOWN


class KnownHosts:
    """The records of all hosts, those that were asked for last."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, HostRecord] = OrderedDict()

    def record(self, host: str, now: float) -> HostRecord:
        """The record of one host."""
        record = self._records.get(host)
        if record is None or record.is_outdated(now):
            record = self._records[host] = HostRecord()
        self._records.move_to_end(host)
        if len(self._records) > MAX_HOSTS:
            self._records.popitem(last=False)
        return record
