"""Mail that is lent to the process which has the link.

A sender waits here for the peer's answer.  There is a connection for each message: its end, however
it comes, ends the loan, and a message without outcomes waits for its peer in the spool.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import ILentMail
from mta.mail import Mailbox, Outcome
from mta.peers.announcements import Announcements
from mta.peers.lending_form import LET_GO, MAX_LENT, LentDelivery, decoded_outcomes
from mta.queue.interfaces import IDeliveryResults, IHeldOutlet, ILinksElsewhere
from mta.queue.outcomes import held_outcome
from mta.queued import Delivery

MAX_LOANS = 100  # messages: as many as may join the line of one link
MAX_TIME = 600.0  # seconds: a process that stands still gives nothing back
CONNECT_TIMEOUT = 1  # seconds: it is on this host


class Loan(Int32StringReceiver):
    """The connection for one message.  `outcomes` fires once; with none where it broke."""

    MAX_LENGTH = MAX_LENT

    def __init__(self, octets: bytes) -> None:
        self.outcomes: Deferred[Sequence[Outcome]] = Deferred()
        self._octets = octets

    def connectionMade(self) -> None:
        """Twisted calls this when the connection stands."""
        self.sendString(self._octets)

    def let_go(self) -> None:
        """Say that the sender waits no more."""
        self.sendString(LET_GO)

    def hang_up(self) -> None:
        """Close the connection."""
        if self.transport is not None:
            self.transport.loseConnection()

    def close(self) -> None:
        """End the loan, without outcomes."""
        self._end(())
        self.hang_up()

    def stringReceived(self, string: bytes) -> None:
        """Twisted calls this with what the other process says."""
        try:
            self._end(decoded_outcomes(string))
        except ValueError:
            self._end(())

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Twisted calls this when the connection has ended."""
        self._end(())

    def _end(self, outcomes: Sequence[Outcome]) -> None:
        if not self.outcomes.called:
            self.outcomes.callback(outcomes)


@implementer(ILinksElsewhere)
class LinksElsewhere:
    """The links that are announced by other processes of this host."""

    log = Logger()

    def __init__(self, announcements: Announcements, mail: ILentMail, reactor: Any) -> None:
        self._announcements = announcements
        self._mail = mail
        self._reactor = reactor
        self._loans: dict[str, Loan | None] = {}  # by the id of the message

    def outlet(self, peer: str, results: IDeliveryResults) -> IHeldOutlet | None:
        """See `ILinksElsewhere.outlet`."""
        socket = self._announcements.find_borrower(peer)
        if socket is None or len(self._loans) >= MAX_LOANS:
            return None
        return _Outlet(peer, socket, self, results)

    def let_go(self, id: str) -> None:
        """See `ILinksElsewhere.let_go`."""
        loan = self._loans.get(id)
        if loan is not None:
            loan.let_go()

    async def lend(self, delivery: Delivery, socket: Path) -> Sequence[Outcome]:
        """Return the outcomes of a delivery there; none: they are not known."""
        id = delivery.message.id
        self._loans[id] = None
        try:
            return await self._lend(delivery, socket)
        except (OSError, ValueError, ConnectError) as error:
            self.log.debug("{queue_id} is not lent: {error}", queue_id=id, error=str(error))
            return ()
        finally:
            loan = self._loans.pop(id)
            if loan is not None:
                loan.hang_up()

    async def _lend(self, delivery: Delivery, socket: Path) -> Sequence[Outcome]:
        """Raises OSError, ValueError or ConnectError."""
        message = delivery.message
        octets = LentDelivery(delivery.targets, await self._mail.lent(message)).encoded()
        if len(octets) > MAX_LENT:
            raise ValueError("too many octets")
        endpoint = UNIXClientEndpoint(self._reactor, str(socket), timeout=CONNECT_TIMEOUT)
        loan: Loan = await connectProtocol(endpoint, Loan(octets))
        self._loans[message.id] = loan
        loan.outcomes.addTimeout(MAX_TIME, self._reactor, lambda result, _: ())
        return await loan.outcomes

    def close(self) -> None:
        """End all loans: what was lent waits for its peer."""
        for loan in list(self._loans.values()):
            if loan is not None:
                loan.close()


@implementer(IHeldOutlet)
class _Outlet:
    """The way to one peer, through the socket of another process."""

    def __init__(
        self, peer: str, socket: Path, links: LinksElsewhere, results: IDeliveryResults
    ) -> None:
        self.peer = peer
        self._socket = socket
        self._links = links
        self._results = results

    def takes(self, address: Mailbox) -> bool:
        """See `IHeldOutlet.takes`: the other process knows better."""
        return True

    def give(self, delivery: Delivery) -> None:
        """See `IHeldOutlet.give`."""
        lending = Deferred.fromCoroutine(self._links.lend(delivery, self._socket))
        lending.addErrback(self._failed)
        lending.addCallback(self._ended, delivery)

    def _failed(self, failure: Failure) -> Sequence[Outcome]:
        """Let a bug harm no more than one loan."""
        self._links.log.failure("mail can't be lent", failure)
        return ()

    def _ended(self, outcomes: Sequence[Outcome], delivery: Delivery) -> None:
        count = len(delivery.targets)
        if len(outcomes) != count:
            outcomes = [held_outcome(self.peer)] * count
        self._results.report(delivery, outcomes)
