"""The rules for turning a connection: which peer, and which mail.

RFC 821 section 3.8 (TURN), RFC 2645 (ATRN), RFC 1985 (ETRN); RFC 5321 appendix F.1: none of it
without authentication.  A peer gets the mail of its own domains and no other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from zope.interface import implementer

from mta.access.policy import is_peer, proved_peer
from mta.interfaces import IHeldMail, IReversal, IRole, ITurnedRoles
from mta.mail import Reply, is_among
from mta.session import LinkKind, Session
from mta.settings import Peer, Service
from mta.smtp import link_kind, replies
from mta.smtp.errors import Refusal

# Where each method may be used.  RFC 2645 section 5: on its port there is nothing but ATRN.
SERVICES = {
    "TURN": frozenset({Service.SMTP, Service.SUBMISSION}),
    "ATRN": frozenset({Service.ODMR, Service.SUBMISSION}),
    "ETRN": frozenset({Service.SMTP, Service.SUBMISSION}),
}
NOT_HELD = Reply(504, "5.5.4", ("No link stays open here without mail",))
MAX_COUNTED = 1000  # messages that ETRN counts before it says just "pending"


@implementer(IReversal)
class Reversal:
    """The peers that dial in, and the mail that waits for them.

    `held` is that mail, `roles` send it.
    """

    def __init__(
        self,
        peers: Iterable[Peer],
        held: IHeldMail,
        roles: ITurnedRoles,
    ) -> None:
        self._peers = [peer for peer in peers if peer.connect is None]
        self._held = held
        self._roles = roles

    def methods(self, session: Session) -> Collection[str]:
        """See `IReversal.methods`.

        ATRN and ETRN are shown before AUTH: clients look for them in the first EHLO.
        """
        if session.turned_peer:
            return ()
        own = [peer for peer in self._peers if is_peer(session, peer)]
        if _proved_something(session):
            candidates = dict.fromkeys(SERVICES, own)
        else:
            candidates = {"ATRN": self._peers, "ETRN": self._peers}
        offered = [
            method
            for method, peers in candidates.items()
            if session.service in SERVICES[method]
            and any(method.lower() in peer.methods for peer in peers)
        ]
        possible = own if own or session.identity else self._peers
        if session.service is not Service.LMTP and any(peer.linger for peer in possible):
            offered.append(link_kind.KEYWORD)
        return offered

    def link(self, session: Session, kind: LinkKind) -> None:
        """See `IReversal.link`."""
        peer = proved_peer(session, self._peers)
        if kind is LinkKind.QUICK and not peer.linger:
            raise Refusal(NOT_HELD)
        session.link = kind

    async def turn(self, session: Session) -> IRole:
        """See `IReversal.turn`.

        A peer without mail is not refused: RFC 821 has no reply that says so.
        """
        peer = self._peer(session, "TURN")
        return self._roles.sender_for(peer, peer.domains, session.link)

    async def atrn(self, session: Session, domains: Sequence[str]) -> IRole:
        """See `IReversal.atrn`."""
        peer = self._peer(session, "ATRN")
        if not all(is_among(domain, peer.domains) for domain in domains):
            raise Refusal(replies.ATRN_REFUSED)
        wanted = domains or peer.domains
        if not peer.linger and not await self._count(peer, wanted, 1, replies.ATRN_LATER):
            raise Refusal(replies.NO_MAIL)
        return self._roles.sender_for(peer, wanted, session.link)

    async def etrn(self, session: Session, option: str, name: str) -> Reply:
        """See `IReversal.etrn`.  ``#`` names a peer, as a queue of its own."""
        peer = self._peer(session, "ETRN")
        wanted = _wanted(peer, option, name)
        if not wanted or peer.etrn is None:
            raise Refusal(replies.ETRN_DENIED)
        count = await self._count(peer, wanted, MAX_COUNTED, replies.ETRN_LATER)
        if not count:
            return replies.ETRN_NO_MAIL
        self._roles.start_run(peer, wanted)
        if option == "#":
            return replies.ETRN_STARTED
        if count == MAX_COUNTED:
            return replies.ETRN_PENDING
        return replies.etrn_pending(count)

    def _peer(self, session: Session, method: str) -> Peer:
        """The peer that this session is.  Raises Refusal.

        It must be one that may use the method.
        """
        if session.service not in SERVICES[method] or session.turned_peer:
            raise Refusal(replies.NOT_IMPLEMENTED)
        for peer in self._peers:
            if is_peer(session, peer) and method.lower() in peer.methods:
                return peer
        raise Refusal(
            replies.TURN_DENIED if _proved_something(session) else replies.TURN_NEEDS_AUTH
        )

    async def _count(
        self, peer: Peer, domains: Collection[str], limit: int, unavailable: Reply
    ) -> int:
        try:
            return await self._held.count(peer.name, domains, limit)
        except OSError:
            raise Refusal(unavailable) from None


def _proved_something(session: Session) -> bool:
    """Tell whether the session has authenticated, as a peer or not."""
    return bool(session.identity or (session.tls and session.tls.certificate))


def _wanted(peer: Peer, option: str, name: str) -> Sequence[str]:
    """The domains that a peer's ETRN means; none: it is refused.

    ``#`` stands for a queue, which bears the peer's name; ``@`` for a domain and those below it.
    """
    if option == "#":
        return peer.domains if name == peer.name else ()
    if option == "@" and any(_is_below(own, name) for own in peer.domains):
        return [own for own in peer.domains if _is_below(own, name)]
    if not is_among(name, peer.domains):
        return ()
    return [name, f".{name}"] if option == "@" else [name]


def _is_below(own: str, name: str) -> bool:
    """Tell whether an entry of `domains` is a domain, or below it."""
    return own == name or own.endswith(f".{name}")
