"""The surroundings of a session: access policy, users, role reversal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from zope.interface import implementer

from mta.interfaces import (
    IAcceptedMail,
    IAccessPolicy,
    IChannel,
    IClientNames,
    IEvictable,
    IFarLooks,
    IFirstRoles,
    IMailboxLists,
    IMailingLists,
    IPairing,
    IRenewals,
    IReversal,
    IRole,
    ITurnReplies,
    IUsers,
)
from mta.mail import Mailbox, Recipient, Reply
from mta.queued import Message
from mta.session import LinkKind, PairingRequest, Session
from mta.settings import Account
from mta.smtp import replies, sasl
from mta.smtp.errors import Refusal

DELAY = 3.0  # seconds after a failed AUTH


@implementer(IAccessPolicy)
class FakeAccessPolicy:
    """An access policy that allows all but some local parts.

    To `nobody` and `later`, from `spammer`, and with the author `boss`, mail is refused.
    `closed`, where set, is the reply to each connection; `sessions` counts those that stand.
    """

    def __init__(self, closed: Reply | None = None) -> None:
        self.closed = closed
        self.sessions = 0

    def takes(self, client: str) -> bool:
        """Take all."""
        return True

    async def connect(self, session: Session, connection: IEvictable | None = None) -> None:
        """Count the session.  Raises Refusal where `closed` is set."""
        self.sessions += 1
        if self.closed is not None:
            raise Refusal(self.closed)

    async def mail(self, session: Session, reverse_path: Mailbox) -> None:
        """Refuse `spammer`."""
        if reverse_path.local_part == "spammer":
            raise Refusal(Reply(550, "5.7.1", ("Not from you",)))

    async def rcpt(self, session: Session, reverse_path: Mailbox, recipient: Recipient) -> None:
        """Refuse `nobody`, and `later` for now."""
        match recipient.forward_path.local_part:
            case "nobody":
                raise Refusal(replies.NO_SUCH_USER)
            case "later":
                raise Refusal(Reply(450, "4.2.1", ("Mailbox busy",)))

    def charge(self, session: Session) -> None:
        """Charge nothing."""

    def disconnect(self, session: Session) -> None:
        """Count the session no more."""
        self.sessions -= 1

    async def auth(self, session: Session) -> None:
        """Let all try."""

    def authenticated(self, session: Session, user: str) -> float:
        """Hold the reply back for no time."""
        return 0.0

    def auth_failed(self, session: Session, user: str, is_known: bool) -> float:
        """Hold the reply back for `DELAY`."""
        return DELAY

    def is_outsider(self, session: Session) -> bool:
        """Tell whether the client has not logged in."""
        return not session.identity

    def checks_authors(self, session: Session) -> bool:
        """Have authors checked."""
        return True

    def header_from(self, session: Session, mailbox: Mailbox) -> None:
        """Refuse `boss`."""
        if mailbox.local_part == "boss":
            raise Refusal(Reply(550, "5.7.1", ("That is not you",)))


@implementer(IAcceptedMail)
class AcceptedMail(list[Message]):
    """The messages that sessions have committed.  `sessions` are theirs, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Session] = []

    def accepted(self, message: Message, session: Session) -> None:
        """Append the message."""
        self.append(message)
        self.sessions.append(session)


@implementer(IClientNames)
class FakeClientNames:
    """Names of clients, of which one is a proxy.

    Another one tells origins.  Reverse-paths at ``localhost`` are at `domain` elsewhere.
    """

    def __init__(self, proxy: str = "", domain: str = "mta.example", teller: str = "") -> None:
        self._proxy = proxy
        self._domain = domain
        self._teller = teller

    def is_proxy(self, address: str) -> bool:
        """Tell whether it is that one."""
        return address == self._proxy

    def tells_origins(self, address: str) -> bool:
        """Tell whether it is that one."""
        return address == self._teller

    def qualified(self, session: Session, reverse_path: Mailbox) -> Mailbox:
        """Replace the domain ``localhost``."""
        if reverse_path.domain != "localhost":
            return reverse_path
        return Mailbox(reverse_path.local_part, self._domain)


@implementer(IMailingLists)
class FakeMailingLists:
    """Lists of which each has itself and some others as members."""

    def __init__(self, *others: Mailbox) -> None:
        self._others = others

    def expand(self, address: Mailbox) -> Sequence[Mailbox]:
        """Return the address, and the others."""
        return (address, *self._others)


@implementer(IUsers)
class FakeUsers:
    """Users with secrets, by name; for `mallory` the users can't be read.

    PLAIN is the only mechanism that works; it is offered under TLS.  `mechanisms` are those
    offered.  With `owns_all` each user may write from any address, else from none.
    """

    def __init__(
        self,
        secrets: Mapping[str, str] | None = None,
        offered: Sequence[str] = ("SCRAM-SHA-256", "PLAIN"),
        *,
        owns_all: bool = False,
    ) -> None:
        self._secrets = {"alice": "wonderland"} if secrets is None else secrets
        self._offered = offered
        self._owns_all = owns_all
        self.accounts: dict[str, Account] = {}

    async def mechanisms(self, session: Session) -> Sequence[str]:
        """Return those offered; PLAIN under TLS alone."""
        return [name for name in self._offered if session.tls or name != "PLAIN"]

    async def authenticate(
        self,
        session: Session,
        mechanism: str,
        initial: bytes | None,
        challenge: Callable[[bytes], Awaitable[bytes]],
    ) -> str:
        """Compare ``NUL user NUL secret``, the initial response or asked for."""
        response = await challenge(b"") if initial is None else initial
        said = response.decode("utf-8", "replace").partition("\0")[2]
        user, _, secret = said.partition("\0")
        if user == "mallory":
            raise sasl.AuthenticationUnavailable
        if self._secrets.get(user) != secret:
            raise sasl.AuthenticationFailed
        return user

    def may_use(self, identity: str, address: Mailbox) -> bool:
        """Return `owns_all`."""
        return self._owns_all

    async def account(self, identity: str) -> Account:
        """Return the one in `accounts`, or one with all rights."""
        return self.accounts.get(identity, Account())


@implementer(IRole)
class GreetingRole:
    """A role after a turn, which greets and ends."""

    async def converse(self, channel: IChannel) -> IRole | None:
        """Write a greeting."""
        channel.write(b"220 turned\r\n")
        return None


@implementer(IFirstRoles)
class OneRole:
    """The same role, without state, for all connections."""

    def __init__(self, role: IRole) -> None:
        self._role = role

    def first_role(self, client: str) -> IRole:
        """Return the role."""
        return self._role


@implementer(ITurnReplies)
class TurnReplies(list[Reply]):
    """The replies to a request for mail."""

    def replied(self, reply: Reply) -> None:
        """Append the reply."""
        self.append(reply)


@implementer(IReversal)
class FakeReversal:
    """Role reversal for all that have logged in, with mail for office.example."""

    def methods(self, session: Session) -> Collection[str]:
        """Return all for a user, ETRN for others."""
        return ("TURN", "ATRN", "ETRN") if session.identity else ("ETRN",)

    def link(self, session: Session, kind: LinkKind) -> None:
        """Note it for a user."""
        if not session.identity:
            raise Refusal(replies.TURN_NEEDS_AUTH)
        session.link = kind

    async def turn(self, session: Session) -> IRole:
        """Turn for a user."""
        if not session.identity:
            raise Refusal(replies.TURN_NEEDS_AUTH)
        return GreetingRole()

    async def atrn(self, session: Session, domains: Sequence[str]) -> IRole:
        """Turn for a user and office.example."""
        if not session.identity:
            raise Refusal(replies.TURN_NEEDS_AUTH)
        if set(domains) - {"office.example"}:
            raise Refusal(replies.ATRN_REFUSED)
        return GreetingRole()

    async def etrn(self, session: Session, option: str, name: str) -> Reply:
        """Start a run for office.example."""
        if name != "office.example":
            raise Refusal(replies.ETRN_DENIED)
        return Reply(250, "2.0.0", (f"Queuing for {option}{name} started",))


@implementer(IPairing)
class FakePairing:
    """A pairing whose secret is zero.  With such a nonce it is over."""

    async def redeem(self, session: Session, request: PairingRequest) -> Sequence[str]:
        """Return two lines for the right secret."""
        if request.secret.strip("0"):
            return ()
        if not request.nonce.strip("0"):
            raise Refusal(Reply(550, "5.7.0", ("This pairing is over",)))
        return ("USER office", "PASSWORD x")


@implementer(IFarLooks, IMailboxLists, IRenewals)
class FakeMailboxLists:
    """Lists, looks or passwords of all that have logged in."""

    is_offered = True

    async def take(self, session: Session, argument: bytes) -> Reply:
        """Repeat the first word."""
        if not session.identity:
            raise Refusal(replies.TURN_NEEDS_AUTH)
        return Reply(250, "2.0.0", (argument.split()[0].decode(),))
