"""Mail that other processes lend to this one.

The link of its peer is here.  `mta.peers.lender` is the other side.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import ILentMail
from mta.mail import Outcome
from mta.peers.lending_form import LET_GO, MAX_LENT, LentDelivery, encoded_outcomes
from mta.queue.interfaces import IBorrowedMail, IBorrowedResult
from mta.queued import Delivery


@implementer(IBorrowedResult)
class Borrower(Int32StringReceiver):
    """The connection of another process, which lends one message.

    Where it ends before the message is on its way, that is not sent: the lender's sender has had no
    reply, and comes again.
    """

    transport: ITransport
    MAX_LENGTH = MAX_LENT

    def __init__(self, mail: IBorrowedMail, lent: ILentMail) -> None:
        self._mail = mail
        self._lent = lent
        self._id = ""
        self._is_over = False

    def stringReceived(self, string: bytes) -> None:
        """Twisted calls this with what the other process says."""
        if self._id:
            if string == LET_GO:
                self._mail.let_go(self._id)
            return
        try:
            lent = LentDelivery.decoded(string)
            message = self._lent.borrowed(lent.message)
        except ValueError:
            self.came(())
            return
        self._id = message.id
        if not self._mail.take(Delivery(message, lent.targets, sender_waits=True), self):
            self.came(())

    def came(self, outcomes: Sequence[Outcome]) -> None:
        """See `IBorrowedResult.came`; none: nothing was tried."""
        if not self._is_over:
            self._is_over = True
            self.sendString(encoded_outcomes(outcomes))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Twisted calls this when the connection has ended."""
        if not self._is_over:
            self._is_over = True
            self._mail.give_back(self._id)


class BorrowerFactory(Factory):
    """Makes them."""

    noisy = False

    def __init__(self, mail: IBorrowedMail, lent: ILentMail) -> None:
        self._mail = mail
        self._lent = lent

    def buildProtocol(self, address: object) -> Borrower:
        """Twisted calls this for each connection."""
        return Borrower(self._mail, self._lent)
