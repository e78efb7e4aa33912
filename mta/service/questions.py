"""The socket on which other processes ask peers that are linked here."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from zope.interface import implementer

from mta.peer_settings import Verify
from mta.peers.peer_questions import OwnLinks
from mta.peers.question_socket import AskedFactory
from mta.service.accepting import RestingPort
from mta.service.configured import Configured
from mta.service.process import IConfigurable, Process


@implementer(IConfigurable)
class QuestionsService(Service):
    """Listens as soon as a peer is to be asked."""

    log = Logger()

    def __init__(self, process: Process) -> None:
        self._process = process
        self._port: Any = None

    def use(self, configured: Configured) -> None:
        """See `IConfigurable.use`."""
        peers = configured.settings.peers.values()
        if self._port is None and any(peer.verify is Verify.LIVE for peer in peers):
            self._listen()

    def stopService(self) -> Deferred[Any]:
        """Twisted calls this when the process is to end."""
        super().stopService()
        self._process.questions.close()
        return succeed(None) if self._port is None else maybeDeferred(self._port.stopListening)

    def _listen(self) -> None:
        announcements, reactor = self._process.links.announcements, self._process.reactor
        assert announcements is not None
        factory = AskedFactory(OwnLinks(self._process.links))
        try:
            announcements.remove_stale(announcements.socket)
            self._port = reactor.listenUNIX(str(announcements.socket), factory, mode=0o600)
            RestingPort(self._port, reactor)
        except (OSError, CannotListenError) as error:
            self.log.error("other processes can't ask this one: {error}", error=str(error))
