"""Sealed mail that waits on: its peer does not open it."""

from __future__ import annotations

from twisted.logger import Logger
from zope.interface import implementer

from mta.peers.interfaces import ITallyWatch
from mta.peers.status_log import PeerStatusLog
from mta.peers.tally import Tally

SEALED_WAITS = "its sealed mail waits: it does not offer to open it"


@implementer(ITallyWatch)
class SealedWaits:
    """Tells of such mail once for each link; another watch hears all."""

    log = Logger()

    def __init__(self, peer: str, status: PeerStatusLog, watch: ITallyWatch) -> None:
        self._peer = peer
        self._status = status
        self._watch = watch
        self._has_told = False

    def changed(self, tally: Tally) -> None:
        """See `ITallyWatch.changed`."""
        self._watch.changed(tally)
        if tally.sealed and not self._has_told:
            self._has_told = True
            self.log.warn(
                "{peer} does not offer to open sealed mail: that waits on; has it"
                " `peers.NAME.seal.key` and TLS that it verifies?",
                peer=self._peer,
            )
            self._status.note(self._peer, obstacle=SEALED_WAITS)
