"""The rules for clients and users, and role reversal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

from zope.interface import Attribute, Interface

from mta.interfaces.connection import IRole
from mta.mail import Hop, Mailbox, Recipient, Reply
from mta.session import (
    Ban,
    LinkKind,
    LogInRecord,
    Observation,
    PairingRequest,
    RecipientAnswer,
    RecipientQuestion,
    Session,
)
from mta.settings import Account, Peer


class ILogInStore(Interface):
    """The bans and log-ins that all processes know of.

    What can't be kept is logged; no method raises.
    """

    async def changed() -> LogInRecord | None:
        """The record, where it has changed since the last call; else None."""

    def add_ban(ban: Ban) -> None:
        """Keep one more ban."""

    def add_proven(host: str, user: str) -> None:
        """Keep that a user has logged in from a host."""


class ILogInPolicy(Interface):
    """The cost of failed log-ins.  `auth` raises `mta.smtp.errors.Refusal`."""

    async def auth(session: Session) -> None:
        """May this session try AUTH now?"""

    def authenticated(session: Session, user: str) -> float:
        """Note that AUTH proved that user.

        Returns the seconds to hold the reply back.
        """

    def auth_failed(session: Session, user: str, is_known: bool) -> float:
        """Note that AUTH failed for that name, perhaps of a user.

        Returns seconds as `authenticated` does.
        """


class IAuthorPolicy(Interface):
    """The rules for authors.  Refuses by `mta.smtp.errors.Refusal`."""

    def checks_authors(session: Session) -> bool:
        """Return whether From: must name the user who submits."""

    def header_from(session: Session, mailbox: Mailbox) -> None:
        """May this session name that mailbox in From:?"""


class IEvictable(Interface):
    """A session that may have to make room for others."""

    def evict() -> None:
        """End it at once."""


class IAdmission(Interface):
    """The rules for connections.  All but `disconnect` refuse by `mta.smtp.errors.Refusal`."""

    def takes(client: str) -> bool:
        """Return whether connections from this address are not refused at once."""

    async def connect(session: Session, connection: IEvictable | None = None) -> None:
        """May this client talk to us at all?  Asked before the greeting.

        It waits for nothing: the client's TLS handshake may have begun.  Where there is a
        `connection`, that may be ended later, as long as it has brought no mail.
        """

    def charge(session: Session) -> None:
        """Note what a session has cost so far, by its `commands_without_mail`."""

    def disconnect(session: Session) -> None:
        """Note that the session is over, however it ended."""


class IAccessPolicy(IAdmission, ILogInPolicy, IAuthorPolicy):
    """The rules for clients and transactions.

    `mail` and `rcpt` raise `mta.smtp.errors.Refusal`.
    """

    async def mail(session: Session, reverse_path: Mailbox) -> None:
        """May this session begin a transaction with that reverse-path?"""

    async def rcpt(session: Session, reverse_path: Mailbox, recipient: Recipient) -> None:
        """May this session send to that recipient, and does it exist?"""

    def is_outsider(session: Session) -> bool:
        """Return whether the client is no user and no host of ours."""


class IClientNames(Interface):
    """The names that clients use, and the clients that proxies speak for."""

    def is_proxy(address: str) -> bool:
        """Return whether that client may speak for others (XCLIENT)."""

    def tells_origins(address: str) -> bool:
        """Return whether that client may tell where its mail comes from (XFORWARD)."""

    def qualified(session: Session, reverse_path: Mailbox) -> Mailbox:
        """Return the reverse-path in a form that other hosts can answer to."""


class IMailingLists(Interface):
    """The addresses that stand for others."""

    def expand(address: Mailbox) -> Sequence[Mailbox]:
        """Return the addresses behind one of ours (EXPN).  Raises Refusal."""


class IUsers(Interface):
    """The users who may log in."""

    async def mechanisms(session: Session) -> Sequence[str]:
        """The SASL mechanisms to offer to this session now, strongest first."""

    async def authenticate(
        session: Session,
        mechanism: str,
        initial: bytes | None,
        challenge: Callable[[bytes], Awaitable[bytes]],
    ) -> str:
        """Hold the server's side of one SASL exchange; returns the identity proved.

        `mechanism` is one of `mechanisms`.  `initial` is the initial response, None where there
        was none; `challenge` sends one (334) and returns the response, both without base64.
        Raises AuthenticationFailed or AuthenticationUnavailable of `mta.smtp.sasl`, and
        whatever `challenge` raises.
        """

    def may_use(identity: str, address: Mailbox) -> bool:
        """Return whether that address is one of the user's own."""

    async def account(identity: str) -> Account:
        """Return the user's rights to send mail, as they are now."""


class IReversal(Interface):
    """Role reversal, as the receiver offers it.  All but `methods` raise Refusal."""

    def methods(session: Session) -> Collection[str]:
        """The commands among TURN, ATRN, ETRN and XLINK that EHLO offers here."""

    def link(session: Session, kind: LinkKind) -> None:
        """Note in the session which use the peer makes of a turn."""

    async def turn(session: Session) -> IRole:
        """The role to take after 250 to TURN (RFC 821 section 3.8)."""

    async def atrn(session: Session, domains: Sequence[str]) -> IRole:
        """The role to take after 250 to ATRN (RFC 2645).

        No `domains`: all that the peer has.
        """

    async def etrn(session: Session, option: str, name: str) -> Reply:
        """Start a queue run (RFC 1985); `option` is ``@``, ``#`` or empty."""


class IPairing(Interface):
    """The pairings that wait for their other host."""

    async def redeem(session: Session, request: PairingRequest) -> Sequence[str]:
        """Return what the other host is told, as lines of a reply.

        None at all: there is no such pairing, or the secret is wrong.  Raises
        `mta.smtp.errors.Refusal` where the secret is right, and the pairing is over.
        """


class IPasswords(Interface):
    """Passwords of users, as far as the server may change them."""

    async def renew(user: str, password: str) -> bool:
        """Let a user have a new password.

        The old one counts as well, until the new one was used.  False: it can't be changed here,
        or not now.
        """


class IRenewals(Interface):
    """New passwords, as the receiver takes them from peers."""

    async def take(session: Session, argument: bytes) -> Reply:
        """Return the reply to XRENEW.  Raises `mta.smtp.errors.Refusal`."""


class IRecipientCheck(Interface):
    """The check whether recipients exist with a peer."""

    async def check(routed: Sequence[tuple[Mailbox, Hop]], reverse_path: Mailbox) -> None:
        """Raise `mta.smtp.errors.Refusal` for a recipient that does not exist.

        `routed` is what the router makes of it.
        """


class IPeerQuestions(Interface):
    """The questions to peers, on links that stand in any process."""

    async def ask(peer: str, question: RecipientQuestion) -> RecipientAnswer:
        """Ask a peer, and return its answer within some seconds."""


class IRecipientAnswers(Interface):
    """The answers of peers that all processes remember.  None of it raises OSError."""

    async def find(peer: str, address: Mailbox) -> RecipientAnswer:
        """Return what a peer answered about an address; NONE: not lately."""

    def keep(peer: str, address: Mailbox, answer: RecipientAnswer) -> None:
        """Remember an answer by and by."""

    async def forget(peer: str) -> None:
        """Forget all answers of a peer."""


class IToldMailboxes(Interface):
    """The mailboxes that peers told us, beside their answers."""

    def told(address: Mailbox) -> bool | None:
        """Tell whether a list has that address; None: there is none."""


class IMailboxListStore(Interface):
    """The lists of mailboxes that peers told us."""

    async def digest(peer: str) -> str:
        """The name of the list of a peer; empty: there is none."""

    async def keep(peer: Peer, document: bytes) -> bool:
        """Keep a list, and go by it.  False: it can't be used."""


class IMailboxLists(Interface):
    """The lists of mailboxes, as the receiver takes them from peers."""

    is_offered: bool = Attribute("whether any peer may send one")

    async def take(session: Session, argument: bytes) -> Reply:
        """Return the reply to XMAILBOXES.  Raises `mta.smtp.errors.Refusal`."""


class IFarEndSource(Interface):
    """Our view of peers, and the place for theirs of us."""

    async def answer(peer: Peer, question: str, argument: str) -> Sequence[Observation]:
        """Return what we see of a peer's domains.

        `question` is one of `mta.smtp.far_look.QUESTIONS`.
        """

    async def keep(peer: Peer, observations: Sequence[Observation]) -> None:
        """Keep the last look of a peer at us."""


class IFarLooks(Interface):
    """The looks of peers at us, as the receiver answers them."""

    is_offered: bool = Attribute("whether any peer may look")

    async def take(session: Session, argument: bytes) -> Reply:
        """Return the reply to XDOCTOR.  Raises `mta.smtp.errors.Refusal`."""
