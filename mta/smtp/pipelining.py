"""Records of how far ahead of replies hosts read (RFC 2920).

Some hosts that offer PIPELINING drop what follows the final dot, or answer 503 to it; some answer a
chunk that they do not want as if it were commands.  What one connection learns, the next one knows.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

MAX_HOSTS = 10_000  # records: strangers choose the mail exchangers of their domains
FORGET_AFTER = 3600.0  # seconds: after which a host that showed too little may show more


class Pipelining(Enum):
    """The input that a host takes before its replies have come."""

    STEPWISE = "stepwise"  # one command: it was out of step
    GROUPED = "grouped"  # a group of commands, but nothing behind content
    UNKNOWN = "unknown"  # a group of commands, and whether more is not known yet
    AHEAD = "ahead"  # the next message behind the content of the last


@dataclass(slots=True)
class HostRecord:
    """The record of one host; `since`: seconds of some clock.

    `was_cut_off`: the last connection was lost while messages were on their way.
    """

    pipelining: Pipelining = Pipelining.UNKNOWN
    since: float = 0.0
    was_cut_off: bool = False

    def learn(self, pipelining: Pipelining, now: float) -> None:
        """Note how far ahead the host reads.

        A host that was out of step stays so until the record is outdated.
        """
        if self.pipelining is not Pipelining.STEPWISE:
            self.pipelining = pipelining
            self.since = now
            self.was_cut_off = False

    def is_outdated(self, now: float) -> bool:
        """Tell whether it is time to find out anew."""
        is_poor = self.pipelining in (Pipelining.STEPWISE, Pipelining.GROUPED)
        return is_poor and now >= self.since + FORGET_AFTER

    def note_cut_off(self) -> None:
        """Note that the connection was lost with messages in flight.

        The host has to show again that it reads ahead.
        """
        self.was_cut_off = True
        if self.pipelining is Pipelining.AHEAD:
            self.pipelining = Pipelining.UNKNOWN


class KnownHosts:
    """The records of the hosts that were asked for last."""

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
