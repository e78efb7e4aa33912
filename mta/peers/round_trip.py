"""The round trip to a peer, as it was measured last."""

from __future__ import annotations

from zope.interface import implementer

from mta.interfaces import ILinkWatch
from mta.peers.status_log import PeerStatusLog

STEADY = 0.25  # of a round trip: the part that a change needs to be worth writing down


@implementer(ILinkWatch)
class RoundTrip:
    """Notes round trips in the status of a peer, where they change."""

    def __init__(self, peer: str, status: PeerStatusLog) -> None:
        self._peer = peer
        self._status = status
        self._noted: float | None = None  # seconds

    def measured(self, round_trip: float) -> None:
        """See `ILinkWatch.measured`."""
        noted = self._noted
        if noted is None or abs(round_trip - noted) > STEADY * noted:
            self._noted = round_trip
            self._status.note(self._peer, round_trip=round_trip)
