"""The provider's side: a peer turned its connection, and is sent the mail held for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import HopFailure, IChannel, IHeldSource, IRole
from mta.smtp.sender import Demands, Sender


@implementer(IRole)
class HandOver:
    """The sender role on a connection that a peer turned (RFC 821 section 3.8, RFC 2645).

    `open_source` gives the peer's mail when the role begins; `note` keeps changes of the peer's
    record.
    """

    log = Logger()

    def __init__(
        self,
        peer: str,
        demands: Demands,
        open_source: Callable[[], IHeldSource],
        note: Callable[..., None],
    ) -> None:
        self._peer = peer
        self._demands = demands
        self._open_source = open_source
        self._note = note

    async def converse(self, channel: IChannel) -> IRole | None:
        """See `IRole.converse`."""
        source = self._open_source()
        self._note(link_since=time.time())
        self.log.info(
            "{peer} turned the connection from {client}", peer=self._peer, client=channel.peer
        )
        trouble = "interrupted"
        try:
            await Sender(source, self._demands).converse(channel)
            trouble = ""
        except HopFailure as failure:
            trouble = str(failure.outcome.reply)
        finally:
            source.close()
            self._note(link_since=None, last_exchange=time.time(), last_error=trouble)
            self.log.info(
                "{peer} was handed its mail{trouble}",
                peer=self._peer,
                trouble=trouble and f": {trouble}",
            )
        return None
