"""The peers that this process dials."""

from __future__ import annotations

from collections.abc import Collection

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mta.limited_log import LimitedLog
from mta.service.configured import Configured
from mta.service.process import STOP_TIMEOUT, IConfigurable
from mta.spool.process_spool import ProcessSpool

MAX_SURE = 30.0  # seconds for which no other node dials ours: half of what a dead one keeps them


@implementer(IConfigurable)
class PeersService(Service):
    """Dials the peers of the configuration, from `begin` on.

    The first process alone does.  Where the spool is `shared` with other nodes, one of them has
    each peer, which `look` finds out.  At the end the configuration in force is closed.
    """

    log = Logger()

    _configured: Configured

    def __init__(
        self, clock: IReactorTime, *, is_first: bool, shared: ProcessSpool | None = None
    ) -> None:
        self._clock = clock
        self._is_first = is_first
        self._shared = shared
        self._has_begun = False
        self._ours: Collection[str] | None = None if shared is None else ()
        self._looked = 0.0  # when it was known last which are ours
        self._limited = LimitedLog(self.log)

    def use(self, configured: Configured) -> None:
        """See `IConfigurable.use`."""
        self._configured = configured
        if self._has_begun:
            self.begin()

    def begin(self) -> None:
        """Dial the peers from now on."""
        self._has_begun = True
        if self._is_first:
            peers = self._configured.settings.peers.values()
            self._configured.customer.keep_up(peers, self._ours)

    async def look(self) -> None:
        """Find out which peers this node dials, and which another one."""
        peers = self._configured.settings.peers.values()
        dialled = {peer.name for peer in peers if peer.is_dialled}
        if self._shared is None or not (dialled or self._ours):
            return
        try:
            ours = await self._shared.peers_to_dial(dialled)
        except OSError as error:
            if self._clock.seconds() - self._looked < MAX_SURE:
                return
            self._limited.warn("dialling", "who dials peers is unknown: {error}", error=str(error))
            ours = ()
        else:
            self._looked = self._clock.seconds()
            self._tell(dialled.intersection(set(ours).symmetric_difference(self._ours or ())), ours)
        self._ours = ours
        self._configured.customer.allow(ours)

    def _tell(self, changed: Collection[str], ours: Collection[str]) -> None:
        """Log which peers another node dials now, and which this one."""
        for peer in sorted(changed):
            who = "this node" if peer in ours else "another node"
            self.log.info("{peer} is dialled by {who}", peer=peer, who=who)

    def stopService(self) -> Deferred[None]:
        """Twisted calls this when the process is to end."""
        super().stopService()
        return Deferred.fromCoroutine(self._configured.close(STOP_TIMEOUT))
