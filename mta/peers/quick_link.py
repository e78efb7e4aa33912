"""The second link to a peer: for questions and small mail."""

from __future__ import annotations

from zope.interface import implementer

from mta.delivery.dialler import Dialler
from mta.peers.exchange import Exchange, NoMail
from mta.peers.interfaces import IExchanges
from mta.peers.status_log import PeerStatusLog
from mta.peers.tally import Tally
from mta.session import LinkKind
from mta.settings import Peer
from mta.smtp.receiver_config import ReceiverConfig


@implementer(IExchanges)
class QuickLink:
    """Exchanges beside the main link.

    On them the peer may ask, and send small mail while the main link is busy.  Operators are shown
    that one stands; what becomes of them is logged.
    """

    def __init__(self, dialler: Dialler, receiver: ReceiverConfig, status: PeerStatusLog) -> None:
        self._dialler = dialler
        self._receiver = receiver
        self._status = status

    async def exchange(self, peer: Peer) -> Tally:
        """See `IExchanges.exchange`.  Raises ExchangeFailed."""
        shown = self._status.link(peer.name, LinkKind.QUICK)
        exchange = Exchange(
            peer, self._dialler, self._receiver, while_turned=shown, kind=LinkKind.QUICK
        )
        return await exchange.run(NoMail())

    async def send_held(self, peer: Peer) -> None:
        """See `IExchanges.send_held`: the main link sees to it."""

    def note_next_try(self, peer: Peer, seconds: float) -> None:
        """See `IExchanges.note_next_try`: nothing is shown of it."""
