"""The looks of peers at us: questions, and what they have seen.

Only a peer that dials in, and has proved who it is under TLS, may ask or tell anything, so often
and no more.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mta.access.limits import RateLimit
from mta.access.policy import proved_peer
from mta.interfaces import IFarEndSource, IFarLooks
from mta.mail import Reply
from mta.session import Session
from mta.settings import HOUR, Peer
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.far_look import Question, parse, reply_of

MAX_COMMANDS = 300  # of one peer in an hour: a look has about ten, and three for each domain

TOO_MANY = Reply(450, "4.7.1", ("Too many questions in this hour, try again later",))
BUSY = Reply(450, "4.3.2", ("Another question of yours is not answered yet",))
KEPT = Reply(250, "2.0.0", ("It is shown by mta doctor here",))


@implementer(IFarLooks)
class FarLooks:
    """The looks of these peers, of which a source knows the answers."""

    def __init__(self, peers: Iterable[Peer], source: IFarEndSource, clock: IReactorTime) -> None:
        self._peers = [peer for peer in peers if peer.connect is None]
        self._source = source
        self._rate = RateLimit(MAX_COMMANDS, HOUR, clock)
        self._asking: set[str] = set()  # peers whose question is not answered yet

    @property
    def is_offered(self) -> bool:
        """See `IFarLooks.is_offered`."""
        return bool(self._peers)

    async def take(self, session: Session, argument: bytes) -> Reply:
        """See `IFarLooks.take`."""
        peer = proved_peer(session, self._peers)
        if session.tls is None:
            raise Refusal(replies.TLS_NEEDED)
        request = parse(argument)
        if not self._rate.take(peer.name):
            raise Refusal(TOO_MANY)
        if not isinstance(request, Question):
            await self._source.keep(peer, request)
            return KEPT
        return await self._answered(peer, request)

    async def _answered(self, peer: Peer, question: Question) -> Reply:
        if peer.name in self._asking:
            raise Refusal(BUSY)
        self._asking.add(peer.name)
        try:
            answer = await self._source.answer(peer, question.name, question.argument)
        finally:
            self._asking.discard(peer.name)
        return reply_of(answer)
