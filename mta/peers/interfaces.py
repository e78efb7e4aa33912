"""The seams inside of peers: progress, and a peer that is dialled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:
    from mta.peers.tally import Tally


class ITallyWatch(Interface):
    """Follows an exchange while it goes on."""

    def changed(tally: Tally) -> None:
        """Note what the connection has carried so far."""


class IDialledPeer(Interface):
    """A peer that we dial, for the loop that does so.  The first two raise HopFailure."""

    async def exchange() -> Tally:
        """Hold one whole exchange."""

    async def send_held() -> None:
        """Send what waits for the peer, if anything does.

        On a second connection, while the first one is turned.
        """

    def note_next_try(seconds: float) -> None:
        """Note in how many seconds the next exchange is due.

        Called after failures.
        """
