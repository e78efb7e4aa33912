"""The links of one listener."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from mta.interfaces import IFirstRoles, ITLSContext
from mta.link.link import Link, host_of
from mta.link.waiting_room import RefusedConnection, WaitingRoom
from mta.session import ChannelLost


class LinkFactory(ServerFactory):
    """Makes a Link for each connection to a listener.

    `links` are those whose conversation is not over.  Connections that no role takes wait in the
    `waiting_room` for their refusal.
    """

    log = Logger()
    noisy = False

    def __init__(self, clock: IReactorTime, waiting_room: WaitingRoom) -> None:
        self.links: set[Link] = set()
        self._clock = clock
        self._waiting_room = waiting_room

    def serve(
        self,
        roles: IFirstRoles,
        tls: ITLSContext | None = None,
        *,
        record_per_line: bool = False,
        refusal: bytes = b"",
    ) -> None:
        """Let new connections begin so; those that stand are not touched.

        `refusal` is what those are told that no role takes.
        """
        self._roles = roles
        self._tls = tls
        self._record_per_line = record_per_line
        self._refusal = refusal

    def buildProtocol(self, address: IAddress | None) -> Protocol:
        """Twisted calls this for each connection."""
        client = host_of(address)
        role = self._roles.first_role(client)
        if role is None:
            return RefusedConnection(self._waiting_room, self._refusal)
        link = Link(role, self._clock, self._tls, record_per_line=self._record_per_line)
        link.remote_address = client
        link.remote_port = getattr(address, "port", 0)
        self.links.add(link)
        link.ended.addErrback(self._failed, link).addBoth(lambda _: self.links.discard(link))
        return link

    def _failed(self, failure: Failure, link: Link) -> None:
        if failure.check(CancelledError):  # by the service, which stops
            self.log.info(
                "session with {peer} cut: it did not end in time",
                peer=link.remote_address,
            )
        elif not failure.check(ChannelLost):
            self.log.failure(
                "session with {peer} failed",
                failure=failure,
                peer=link.remote_address,
            )
