"""The seams inside of peers: progress of an exchange, and exchanges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

from mta.settings import Peer

if TYPE_CHECKING:
    from mta.peers.tally import Tally


class ITallyWatch(Interface):
    """Follows an exchange while it goes on."""

    def changed(tally: Tally) -> None:
        """Note what the connection has carried so far."""


class IExchanges(Interface):
    """The exchanges with peers that we dial.  The first two methods raise HopFailure."""

    async def exchange(peer: Peer) -> Tally:
        """Hold one whole exchange."""

    async def send_held(peer: Peer) -> None:
        """Send what waits for the peer, if anything does.

        On a second connection, while the first one is turned.
        """

    def note_next_try(peer: Peer, seconds: float) -> None:
        """Note in how many seconds the next exchange is due.

        Called after failures.
        """
