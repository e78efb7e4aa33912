"""The peers that this process dials."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mta.service.configured import Configured
from mta.service.process import STOP_TIMEOUT, IConfigurable


@implementer(IConfigurable)
class PeersService(Service):
    """Dials the peers of the configuration, from `begin` on.

    The first process alone does.  At the end the configuration in force is closed.
    """

    _configured: Configured

    def __init__(self, *, is_first: bool) -> None:
        self._is_first = is_first
        self._has_begun = False

    def use(self, configured: Configured) -> None:
        """See `IConfigurable.use`."""
        self._configured = configured
        if self._has_begun:
            self.begin()

    def begin(self) -> None:
        """Dial the peers from now on."""
        self._has_begun = True
        if self._is_first:
            self._configured.customer.keep_up(self._configured.settings.peers.values())

    def stopService(self) -> Deferred[None]:
        """Twisted calls this when the process is to end."""
        super().stopService()
        return Deferred.fromCoroutine(self._configured.close(STOP_TIMEOUT))
