"""The relay's side of XPAIR: a secret in, a password out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IPairing
from mta.pairing.pairings import Grant, Pairings
from mta.session import PairingRequest, Session
from mta.smtp import replies
from mta.smtp.errors import Refusal


@implementer(IPairing)
class Redemption:
    """The pairings of a spool, used in threads."""

    log = Logger()

    def __init__(
        self,
        pairings: Pairings,
        in_thread: Callable[..., Deferred[Any]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._pairings = pairings
        self._in_thread = in_thread
        self._now = now

    async def redeem(self, session: Session, request: PairingRequest) -> Sequence[str]:
        """See `IPairing.redeem`."""
        try:
            grant: Grant | None = await self._in_thread(self._pairings.redeem, request)
        except OSError as error:
            self.log.error("pairings can't be used: {error}", error=str(error))
            raise Refusal(replies.LOCAL_ERROR) from None
        except Refusal as refusal:
            self.log.warn(
                "pairing refused to {client}: {reply}",
                client=session.client,
                reply=str(refusal.reply),
            )
            raise
        if grant is None:
            self.log.warn(
                "a pairing was asked for from {client} that does not exist", client=session.client
            )
            return ()
        self.log.info("{peer} paired from {client}", peer=grant.peer, client=session.client)
        return [
            f"TIME {self._now():.0f}",
            f"USER {grant.user}",
            f"PASSWORD {grant.password}",
        ]
