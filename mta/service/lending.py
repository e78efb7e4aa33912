"""The socket on which processes lend each other mail for linked peers."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from mta.peers.borrower import BorrowerFactory
from mta.peers.lender import LinksElsewhere
from mta.service.accepting import RestingPort
from mta.service.configured import Configured
from mta.service.passing import passed_through
from mta.service.process import IConfigurable, Process
from mta.spool.lending import LentMail


@implementer(IConfigurable)
class LendingService(Service):
    """Lends and borrows, as soon as workers pass mail through."""

    log = Logger()

    def __init__(self, process: Process) -> None:
        self._process = process
        self._elsewhere: LinksElsewhere | None = None
        self._port: Any = None

    def use(self, configured: Configured) -> None:
        """See `IConfigurable.use`."""
        settings = configured.settings
        is_wanted = settings.queue.workers > 1 and passed_through(settings)
        if self._elsewhere is None and is_wanted:
            self._begin()

    def stopService(self) -> Deferred[Any]:
        """Twisted calls this when the process is to end."""
        super().stopService()
        if self._elsewhere is not None:
            self._elsewhere.close()
        return succeed(None) if self._port is None else maybeDeferred(self._port.stopListening)

    def _begin(self) -> None:
        process = self._process
        announcements, reactor = process.links.announcements, process.reactor
        assert announcements is not None
        mail = LentMail(partial(deferToThreadPool, reactor, process.threads))
        uncommitted = process.runner.uncommitted
        uncommitted.elsewhere = self._elsewhere = LinksElsewhere(announcements, mail, reactor)
        factory = BorrowerFactory(uncommitted.borrowed, mail)
        try:
            announcements.remove_stale(announcements.borrower)
            self._port = reactor.listenUNIX(str(announcements.borrower), factory, mode=0o600)
            RestingPort(self._port, reactor)
        except (OSError, CannotListenError) as error:
            self.log.error("other processes can't lend this one mail: {error}", error=str(error))
