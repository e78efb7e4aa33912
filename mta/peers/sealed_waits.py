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
    """Tells of such mail, on one connection; another watch hears all.

    `told`: the peers whose mail is known to wait so, over all connections.  It is logged once.
    """

    log = Logger()

    def __init__(
        self, peer: str, status: PeerStatusLog, told: set[str], watch: ITallyWatch
    ) -> None:
        self._peer = peer
        self._status = status
        self._told = told
        self._watch = watch
        self._is_noted = False

    def changed(self, tally: Tally) -> None:
        """See `ITallyWatch.changed`."""
        self._watch.changed(tally)
        if tally.opened and self._peer in self._told:
            self._told.discard(self._peer)
            self._status.note(self._peer, obstacle="")
        elif tally.unopened and not self._is_noted:
            self._is_noted = True
            self._status.note(self._peer, obstacle=SEALED_WAITS)
            if self._peer not in self._told:
                self._told.add(self._peer)
                self._tell()

    def _tell(self) -> None:
        self.log.warn(
            "{peer} does not offer to open sealed mail: that waits on; has it"
            " `peers.NAME.seal.key` and TLS that it verifies?",
            peer=self._peer,
        )
