"""The rules for reverse-paths, recipients and relaying.

There is no way round the relay rule: the domain of a forward-path follows its last ``@``.  ``%``,
``!`` and ``@`` in a local part mean nothing to us (RFC 5321 section 4.1.1.3, appendix F.2), and
strangers can't send them through us to a server to which they might mean something.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zope.interface import implementer

from mta.access import hosts
from mta.access.admission import Admission
from mta.access.counters import Counters
from mta.access.logins import LogIns
from mta.access.sending_limits import SendingLimits
from mta.interfaces import IAccessPolicy, IEvictable, IRecipientCheck, IRouter, IUsers
from mta.mail import Agent, Hop, Mailbox, Recipient, Reply, is_among
from mta.session import UNKNOWN_ADDRESS, Session
from mta.settings import Limits, Peer, Relay, Service, UserLimits
from mta.smtp import replies, templates
from mta.smtp.errors import Refusal
from mta.smtp.grammar import has_route

TOO_MANY_MESSAGES = Reply(450, "4.7.1", ("Too many messages in this minute, try again later",))
TOO_MANY_RECIPIENTS = Reply(450, "4.7.1", ("Too many recipients in this hour, try again later",))
NO_MAIL_HERE = Reply(502, "5.5.1", ("No mail is taken here",))
LOG_IN_FIRST = Reply(530, "5.7.0", ("Authentication required",))
NOT_YOUR_ADDRESS = Reply(553, "5.7.1", ("You may not send as this address",))
NOT_YOUR_FROM = Reply(550, "5.7.1", ("You may not write as the address in From:",))
RELAYING_DENIED = Reply(550, "5.7.1", ("Relaying denied",))
NOT_A_PEER = Reply(530, "5.7.0", ("Only for peers that have logged in",))
NOT_FROM_PEER = Reply(550, "5.7.1", ("This domain's mail is not taken from you",))

_TO_ANOTHER_SERVER = frozenset({Agent.MX, Agent.SMTP, Agent.HOLD})


@implementer(IAccessPolicy)
class AccessPolicy:
    """The rules of one configuration.

    `users` None: there are no log-ins.  `counters` are those of the process, which outlive it.
    `sending` None: there are no limits over a day, and no users.  `recipients` knows
    those of peers.
    """

    def __init__(
        self,
        relay: Relay,
        limits: Limits,
        peers: Iterable[Peer],
        router: IRouter,
        users: IUsers | None,
        counters: Counters,
        sending: SendingLimits | None = None,
        recipients: IRecipientCheck | None = None,
    ) -> None:
        self._networks = relay.networks
        self._peers = {peer.name: peer for peer in peers}
        self._router = router
        self._users = users
        self._counters = counters
        self._sending = sending
        self._recipients = recipients
        self._admission = Admission(counters, limits.connections, relay.networks, relay.xclient)
        self._log_ins = LogIns(
            self._counters,
            (*relay.networks, *relay.xclient),
            {peer.user.lower() for peer in self._peers.values() if peer.user},
        )

    # --- connections and log-ins

    def takes(self, client: str) -> bool:
        """See `IAdmission.takes`."""
        return self._admission.takes(client)

    async def connect(self, session: Session, connection: IEvictable | None = None) -> None:
        """See `IAdmission.connect`.

        It is asked again when a proxy has named the client of a session.
        """
        self.disconnect(session)
        if not session.turned_peer:  # else we dialled, or counted it before the turn
            self._admission.admit(session, connection)

    def charge(self, session: Session) -> None:
        """See `IAdmission.charge`."""
        self._admission.charge(session)

    def disconnect(self, session: Session) -> None:
        """See `IAdmission.disconnect`."""
        self._admission.release(session)

    async def auth(self, session: Session) -> None:
        """See `IAccessPolicy.auth`."""
        await self._counters.bans.refresh()
        self._log_ins.auth(session)

    def authenticated(self, session: Session, user: str) -> float:
        """See `IAccessPolicy.authenticated`."""
        return self._log_ins.authenticated(session, user)

    def auth_failed(self, session: Session, user: str, is_known: bool) -> float:
        """See `IAccessPolicy.auth_failed`."""
        return self._log_ins.auth_failed(session, user, is_known)

    # --- reverse-paths

    async def mail(self, session: Session, reverse_path: Mailbox) -> None:
        """See `IAccessPolicy.mail`."""
        if not (session.turned_peer or session.service is Service.LMTP):
            self._check_writer(session, reverse_path)
        if account := _account(session):
            await self._count_message(session, account)

    async def _count_message(self, session: Session, account: str) -> None:
        """Count a message for its user or host.  Raises Refusal."""
        own = UserLimits()
        if self._sending is not None and session.identity:
            own = await self._sending.admit(session)
        if not self._counters.messages.take(account, own.messages_per_minute):
            raise Refusal(TOO_MANY_MESSAGES)

    def _check_writer(self, session: Session, reverse_path: Mailbox) -> None:
        """Raise Refusal where the session may not send with that reverse-path."""
        if session.service is Service.ODMR:
            raise Refusal(NO_MAIL_HERE)
        if session.service is Service.SUBMISSION and not session.identity:
            raise Refusal(LOG_IN_FIRST)
        if not reverse_path.is_null and not self._may_write_as(session, reverse_path):
            raise Refusal(NOT_YOUR_ADDRESS)

    def is_outsider(self, session: Session) -> bool:
        """See `IAccessPolicy.is_outsider`."""
        return not self._is_trusted(session)

    def checks_authors(self, session: Session) -> bool:
        """See `IAccessPolicy.checks_authors`."""
        return not any(is_peer(session, peer) for peer in self._peers.values())

    def header_from(self, session: Session, mailbox: Mailbox) -> None:
        """See `IAccessPolicy.header_from`."""
        if not self._may_write_as(session, mailbox):
            raise Refusal(NOT_YOUR_FROM)

    def _may_write_as(self, session: Session, address: Mailbox) -> bool:
        """Tell whether the session may use that address as a sender.

        A user has its own addresses, a peer all of its domains.
        """
        if not session.identity:
            return True
        if self._users is not None and self._users.may_use(session.identity, address):
            return True
        return any(
            is_peer(session, peer) and is_among(address.domain, peer.domains)
            for peer in self._peers.values()
        )

    # --- forward-paths

    async def rcpt(self, session: Session, reverse_path: Mailbox, recipient: Recipient) -> None:
        """See `IAccessPolicy.rcpt`."""
        address = recipient.forward_path
        ours = not address.domain or self._router.is_ours(address.domain)
        if session.turned_peer:
            peer = self._peers.get(session.turned_peer)
            if peer is None or not ours or not _is_from(peer, address):
                raise Refusal(NOT_FROM_PEER)
        elif not ours and not self._is_trusted(session):
            raise Refusal(RELAYING_DENIED)
        hops = self._router.route(address, reverse_path)
        if refusal := rejection(hops):
            raise Refusal(refusal)
        for final, hop in hops:
            if refusal := templates.refusal(hop, reverse_path, final):
                raise Refusal(refusal)
        if _passes_route_on(address, hops) and not self._is_trusted(session):
            raise Refusal(replies.ROUTE_DENIED)
        if self._recipients is not None:
            await self._recipients.check(hops, reverse_path)
        if account := _account(session):
            await self._count_recipient(session, account)

    async def _count_recipient(self, session: Session, account: str) -> None:
        """Count a recipient for its user or host.  Raises Refusal."""
        sending, own = self._sending, UserLimits()
        if sending is not None and session.identity:
            own = await sending.limits_of(session)
        if not self._counters.recipients.take(account, own.recipients_per_hour):
            raise Refusal(TOO_MANY_RECIPIENTS)
        if sending is not None and self._is_trusted(session):
            await sending.recipient(_own_account(session), own)

    def _is_trusted(self, session: Session) -> bool:
        """Tell whether this session may send to other hosts."""
        if session.turned_peer or session.told is not None:
            return False
        if session.service not in (Service.SMTP, Service.SUBMISSION):
            return False
        return bool(session.identity) or hosts.is_in(session.client, self._networks)


def rejection(hops: Sequence[tuple[Mailbox, Hop]]) -> Reply | None:
    """The reply for an address that all hops reject, else None."""
    if hops and all(hop.agent is Agent.REJECT for _, hop in hops):
        return Reply(550, "5.7.1", (hops[0][1].next_hop,))
    return None


def _account(session: Session) -> str:
    """The name under which messages are counted: the user, else the host.

    It is empty where they are not.
    """
    client = session.outsider
    if client is not None and client.client != UNKNOWN_ADDRESS and not session.identity:
        return f"host {hosts.key(client.client)}"
    if session.turned_peer or session.service is Service.LMTP:
        return ""
    return _own_account(session)


def _own_account(session: Session) -> str:
    """The same for what is sent by right.

    What a server tells of its clients is none.
    """
    if session.identity:
        return f"user {session.identity.lower()}"
    return f"host {hosts.key(session.client)}"


def _passes_route_on(address: Mailbox, hops: Iterable[tuple[Mailbox, Hop]]) -> bool:
    """Tell whether another server would get a local part with a route.

    To that server it may mean another host.
    """
    return has_route(address.local_part) and any(
        hop.agent in _TO_ANOTHER_SERVER and final.local_part == address.local_part
        for final, hop in hops
    )


def is_peer(session: Session, peer: Peer) -> bool:
    """Tell whether the session has proved that it is this peer."""
    if peer.user and peer.user.lower() == session.identity.lower():
        return True
    shown = session.tls.certificate if session.tls else ""
    return bool(shown) and shown == peer.certificate


def proved_peer(session: Session, peers: Iterable[Peer]) -> Peer:
    """The one of these peers that the session has proved to be.  Raises Refusal."""
    peer = next((each for each in peers if is_peer(session, each)), None)
    if peer is None:
        raise Refusal(NOT_A_PEER)
    return peer


def _is_from(peer: Peer, address: Mailbox) -> bool:
    """Tell whether a peer may send us mail for that address.

    An address without a domain is Postmaster, which all may write to.
    """
    return not address.domain or is_among(address.domain, peer.domains)
