"""New passwords of peers, which these send themselves.

Only a peer that dials in and has logged in may have one, for its own user.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mta.access.limits import RateLimit
from mta.access.policy import proved_peer
from mta.interfaces import IPasswords, IRenewals
from mta.mail import Reply
from mta.session import Session
from mta.settings import HOUR, Peer
from mta.smtp import replies
from mta.smtp.errors import Refusal

MAX_RENEWALS = 20  # of one peer in an hour: each costs tenths of a second of hashing

TAKEN = Reply(250, "2.0.0", ("Both passwords count until the new one was used",))
TOO_MANY = Reply(450, "4.7.1", ("Too many new passwords in this hour, try again later",))
NOT_KEPT = Reply(550, "5.3.3", ("This password can't be changed here",))

_PASSWORD = re.compile(rb"[A-Za-z0-9_-]{32,64}")


@implementer(IRenewals)
class Renewals:
    """The new passwords of these peers.

    No `passwords`: they are not ours to change.
    """

    def __init__(
        self, peers: Iterable[Peer], passwords: IPasswords | None, clock: IReactorTime
    ) -> None:
        self._peers = [peer for peer in peers if peer.connect is None and peer.user]
        self._passwords = passwords
        self._rate = RateLimit(MAX_RENEWALS, HOUR, clock)

    async def take(self, session: Session, argument: bytes) -> Reply:
        """See `IRenewals.take`."""
        peer = proved_peer(session, self._peers)
        if session.tls is None:
            raise Refusal(replies.TLS_NEEDED)
        if not _PASSWORD.fullmatch(argument):
            raise Refusal(replies.BAD_ARGUMENT)
        if not self._rate.take(peer.name):
            raise Refusal(TOO_MANY)
        if self._passwords is None:
            raise Refusal(NOT_KEPT)
        if not await self._passwords.renew(peer.user, argument.decode("ascii")):
            raise Refusal(NOT_KEPT)
        return TAKEN
