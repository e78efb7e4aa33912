"""The seams of the house: what each room promises the others.

The rooms meet here and are joined in `mta.service` by constructor arguments.  Every
implementation has a ``verifyObject`` test.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from zope.interface import Attribute, Interface

from mta.mail import NULL_PATH, Envelope, Hop, Mailbox, Outcome, Recipient, Reply
from mta.settings import Peer, Service

# --- one connection, two roles -----------------------------------------------

LOCAL_ADDRESS = "unix"  # instead of the address of another host
UNKNOWN_ADDRESS = "unknown"  # the same, where a proxy does not tell it: it has no rights


class ChannelLost(Exception):
    """The connection ended, or was ended by us: no more can be read or written."""


class ChannelTimeout(ChannelLost):
    """The peer took longer than the step allows (RFC 5321 section 4.5.3.2)."""


class HandshakeFailed(ChannelLost):
    """TLS did not come about, and the connection is of no use any more."""


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """What TLS says of a connection.  `certificate` is the peer's verified SHA-256
    fingerprint in lower-case hex, empty where it showed none that we trust.  `bindings` are
    the channel binding data by type (RFC 5929, RFC 9266)."""

    version: str
    cipher: str
    certificate: str = ""
    bindings: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)


class IChannel(Interface):
    """What a role may do with the connection under it."""

    wire = Attribute("an `mta.smtp.wire.Wire`: what has arrived and is not yet read")
    remote_address: str = Attribute(
        "the address of the other end, as Received: shows it; 'unix' for a local one"
    )
    tls: TLSInfo | None = Attribute("TLS, where it is on")
    closing: bool = Attribute("whether the service is stopping, so that nothing new should begin")

    def write(data: bytes) -> None:
        """Send octets, in order; all that is written before the role waits goes out together."""

    async def receive(end: float) -> None:
        """Return when something was added to `wire`, or `closing` became true.

        What was written has by then been taken by the peer but for a bounded rest; `end`: the
        time by `seconds` at which all of it must have happened.  Raises ChannelLost when the
        connection ends first, ChannelTimeout when time does.
        """

    async def drain(end: float) -> bool:
        """Return True once more can be written without piling it up, False when octets came first.

        Who writes much reads between: a peer that can't get rid of its replies takes nothing.
        Raises as `receive` does.
        """

    def seconds() -> float:
        """The time on some clock that only goes forward, for measuring how long things take."""

    async def sleep(seconds: float) -> None:
        """Return when that time has passed, whatever arrives meanwhile."""

    async def wait_idle(event: Coroutine[Any, Any, bool], seconds: float) -> bool | None:
        """Wait for `event` while nothing is said on the connection; returns its result.

        None: so much time has passed, or the peer said something; `event` is then cancelled.
        Raises ChannelLost.
        """

    async def start_tls() -> None:
        """Begin TLS on our side of the connection, dropping what was read but not used.

        Raises HandshakeFailed.
        """

    def notice_loss(seconds: float) -> None:
        """Let the system end the connection where the peer acknowledges nothing for so long."""

    def abort() -> None:
        """End the connection now: whoever waits for it gets ChannelLost."""


class IRole(Interface):
    """Receiver-SMTP or sender-SMTP: one side of one SMTP conversation."""

    async def converse(channel: IChannel) -> IRole | None:
        """Hold one conversation; return the role to take next, None to close.

        May raise ChannelLost, which ends the connection quietly.
        """


# --- who may do what -----------------------------------------------------------


@dataclass(slots=True)
class Session:
    """One conversation as the receiver sees it: greeting to QUIT or TURN.

    `identity` is the user that AUTH proved, empty before.  `turned_peer` is the peer on whose
    turned connection we receive, empty elsewhere; rights come from it, never from `identity`.
    """

    service: Service
    client: str
    tls: TLSInfo | None
    turned_peer: str = ""
    hello: str = ""  # what HELO, EHLO or LHLO named
    extended: bool = False  # EHLO or LHLO
    identity: str = ""
    cleartext_auth: bool = False  # a password may come without TLS
    wasted: int = 0  # commands that brought no mail, at the end
    host_wasted: int = 0  # the same in other sessions of the host, lately

    @property
    def protocol(self) -> str:
        """The WITH keyword of the Received: field (RFC 3848)."""
        name = "ESMTP" if self.extended else "SMTP"
        if self.service is Service.LMTP:
            name = "LMTP"
        return name + ("S" if self.tls else "") + ("A" if self.identity else "")


@dataclass(frozen=True, slots=True)
class Ban:
    """A host, or one user at a host, that may not log in; times in seconds since the epoch.

    `host` is an address or a network, `user` empty for everybody there.  `failures` is how many
    log-ins failed, `users` are those known to us that were tried.
    """

    host: str
    user: str
    since: float
    until: float
    failures: int
    users: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """What it bans: there is one for each."""
        return self.host, self.user

    def is_in_force(self, now: float) -> bool:
        """Whether it counts; not where the clock was set back to before it began."""
        return self.since - CLOCK_TOLERANCE <= now < self.until


CLOCK_TOLERANCE = 60.0  # seconds that the clock may be set back without ending a ban


@dataclass(frozen=True, slots=True)
class LogInRecord:
    """What all processes know of log-ins: bans, and who has logged in from which host."""

    bans: tuple[Ban, ...] = ()
    proven: tuple[tuple[str, str], ...] = ()  # host and user in lower case, the latest last


class ILogInStore(Interface):
    """Where all processes see what is known of log-ins.  What can't be kept is logged."""

    async def changed() -> LogInRecord | None:
        """All of it, if it is not what it was the last time; else None.  Raises nothing."""

    def add_ban(ban: Ban) -> None:
        """Keep one more ban."""

    def add_proven(host: str, user: str) -> None:
        """Keep who has logged in from a host."""


class IAccessPolicy(Interface):
    """Who may do what in a session.  Every method raises `mta.smtp.errors.Refusal`."""

    async def connect(session: Session) -> None:
        """May this client talk to us at all?  Asked before the greeting.

        It waits for nothing: the client's TLS handshake may have begun.
        """

    async def mail(session: Session, reverse_path: Mailbox) -> None:
        """May this session begin a transaction with that reverse-path?"""

    async def rcpt(session: Session, reverse_path: Mailbox, recipient: Recipient) -> None:
        """May this session send to that recipient, and does it exist?"""

    def disconnect(session: Session) -> None:
        """The session is over, however it ended.  Raises nothing."""

    async def auth(session: Session) -> None:
        """May this session try AUTH now?"""

    def authenticated(session: Session, user: str) -> float:
        """AUTH proved that user; returns for how many seconds to hold the reply back."""

    def auth_failed(session: Session, user: str, is_known: bool) -> float:
        """AUTH failed for that name, perhaps of a user; returns seconds as `authenticated`."""

    def is_outsider(session: Session) -> bool:
        """Whether neither a user nor a host of ours is there.  Raises nothing."""

    def checks_authors(session: Session) -> bool:
        """Whether a person submits here, and not a peer what others wrote.  Raises nothing."""

    def header_section(envelope: Envelope, octets: bytes) -> None:
        """May content that begins so go to those recipients?"""

    def header_from(session: Session, mailbox: Mailbox) -> None:
        """May this session name that mailbox as the author of a message (From:)?"""


class IUsers(Interface):
    """Who may log in, and how."""

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
        """Whether that address is one of the user's own."""


class IReversal(Interface):
    """Role reversal, as the receiver offers it: who may turn a connection, and to what."""

    def methods(session: Session) -> Collection[str]:
        """Which of TURN, ATRN and ETRN EHLO shows to this session."""

    async def turn(session: Session) -> IRole:
        """The role to take after 250 to TURN (RFC 821 section 3.8).  Raises Refusal."""

    async def atrn(session: Session, domains: Sequence[str]) -> IRole:
        """The role to take after 250 to ATRN; no `domains`: all that the peer has (RFC 2645).

        Raises Refusal.
        """

    async def etrn(session: Session, option: str, name: str) -> Reply:
        """Start a queue run (RFC 1985); `option` is ``@``, ``#`` or empty.  Raises Refusal."""


# --- the spool -------------------------------------------------------------------


class IContent(Interface):
    """The content of one message: header section and body, CRLF line ends, no dot stuffing."""

    size: int = Attribute("octets")
    is_ascii: bool = Attribute("whether every octet is below 128")

    def pieces() -> AsyncIterator[bytes]:
        """The octets in pieces of at most a few hundred KiB, from the start, as often as asked.

        Raises OSError where the spool can't be read.
        """


class IDraft(Interface):
    """Content that is still arriving.  Holds little memory, whatever the size."""

    id: str = Attribute("the queue id that the message will have")

    async def write(piece: bytes) -> None:
        """Append octets.  Raises SpoolFull or OSError."""

    def discard() -> None:
        """Forget it, and whatever of it was written."""


class SpoolFull(OSError):
    """No room for more mail: answer 452 4.3.1."""


class State(Enum):
    """Where one recipient of a queued message stands."""

    WAITING = "waiting"
    HELD = "held"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One line of a recipient's history; `at` is in seconds since the epoch.

    `address` is the final address, where an alias leads to it; `remote` the host that replied.
    """

    at: float
    hop: str
    status: str
    reply: str
    address: str = ""
    remote: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one recipient of a queued message has come.

    An alias may stand for several final addresses: those in `settled` need no further
    attempt.  `peer` names who a HELD recipient waits for, `domain`
    is the domain of the final address that waits.
    `history` is newest last and bounded by `HISTORY` attempts.
    """

    recipient: Recipient
    state: State = State.WAITING
    peer: str = ""
    settled: frozenset[str] = frozenset()
    history: tuple[Attempt, ...] = ()
    domain: str = ""

    def with_attempt(self, attempt: Attempt) -> Progress:
        """The same with one more attempt in its history."""
        return replace(self, history=(*self.history, attempt)[-HISTORY:])


HISTORY = 20  # attempts remembered for a recipient


@dataclass(frozen=True, slots=True)
class Message:
    """A queued message.  `arrived`: seconds since the epoch.

    `recovered` is true where an earlier owner died while it held the lease, so that a
    delivery may have happened without being recorded.  `on_hold` is the standing hold that a new
    message fits, in words: it is then leased to nobody, and waits for a person.
    """

    id: str
    arrived: float
    envelope: Envelope
    content: IContent
    progress: tuple[Progress, ...]
    attempts: int = 0
    warned: bool = False
    recovered: bool = False
    on_hold: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """A message of our own making, for the spool: a delivery status notification."""

    envelope: Envelope
    content: bytes


@dataclass(frozen=True, slots=True)
class Settlement:
    """What one attempt changed: recorded in one commit, notices and all.

    `due`: when to try again, seconds since the epoch (for a message whose open recipients
    are all HELD: when they expire).  The message is removed when every recipient is DONE.
    `recovered`: a delivery may have happened that is not in `progress`.
    """

    id: str
    progress: tuple[Progress, ...]
    due: float
    attempts: int
    warned: bool
    notices: tuple[Notice, ...] = ()
    recovered: bool = False


class ISpool(Interface):
    """Where accepted mail waits.  A commit survives power loss; nothing less is a commit."""

    def draft() -> IDraft:
        """Somewhere to write content that arrives."""

    async def commit(draft: IDraft, envelope: Envelope) -> Message:
        """Take responsibility for a message (RFC 5321 section 6.1).

        Returns once content and envelope are on stable storage; the message is leased to this
        process, or on hold.  Raises SpoolFull (answer 452) or OSError (answer 451); then nothing
        is left behind.
        """


class IQueue(Interface):
    """The runner's side of the spool."""

    async def lease_due(limit: int) -> Sequence[Message]:
        """Lease at most `limit` messages whose time has come, the longest overdue first."""

    async def lease_held(peer: str, domains: Collection[str], limit: int) -> Sequence[Message]:
        """Lease at most `limit` messages held for a peer, oldest first.

        Only what waits with a final address in `domains` counts (or below, for ``.domain``;
        anywhere, for ``.``).
        """

    async def count_held(peer: str, domains: Collection[str], most: int) -> int:
        """How many messages wait for a peer and some of its domains, counted up to `most`."""

    async def next_due() -> float | None:
        """When the next message is due, seconds since the epoch; None: nothing waits."""

    async def settle(settlement: Settlement) -> Sequence[Message]:
        """Record an attempt and give up the lease; returns its notices, leased to us."""

    async def remove(ids: Collection[str], patience: float) -> None:
        """Remove messages, leased to us, with which nothing is left to do.

        It may take `patience` seconds until that is recorded.  Raises OSError; then none is
        removed, and we keep the leases.
        """

    async def lease(ids: Collection[str]) -> Sequence[Message]:
        """Lease those of these messages that nobody works on and nobody holds, due or not."""

    async def recalled(ids: Collection[str]) -> Collection[str]:
        """Those of these messages, leased to us, that a person removed or put on hold."""

    async def postpone(
        dues: Mapping[str, float], warn_after: float, give_up_after: float
    ) -> Mapping[str, int]:
        """Put off what is due and waits for nothing but these hops, as `str` has them.

        `dues`: when each is due anew, seconds since the epoch; no later than its sender has to be
        told, by the seconds that follow.  Returns how many messages of a bounded portion, by hop.
        Raises OSError.
        """

    async def release(dues: Mapping[str, float]) -> None:
        """Give up leases without an attempt.

        Each message is due, for any process, at its time: seconds since the epoch, past for
        at once.
        """


class IAttempts(Interface):
    """Which messages this process tries at this moment: whoever takes over from it may ask."""

    def begin_attempt(id: str) -> bool:
        """Note that an attempt for a message leased to us begins; several may go on at once.

        False where we stood still for so long that others may have the message: do not try it.
        """

    def end_attempt(id: str) -> None:
        """Note that one of them is over, however it went."""


# --- the queue ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """One final address of one recipient: `number` is the recipient's place in the envelope.

    `forwarder` is the address of ours whose mail goes on elsewhere, where this is such mail.
    `also` are targets of other recipients that lead to the same mailbox: it gets one copy.
    """

    number: int
    address: Mailbox
    hop: Hop
    forwarder: Mailbox | None = None
    also: tuple[Target, ...] = ()

    @property
    def served(self) -> tuple[Target, ...]:
        """Itself and those that an attempt for it is an attempt for as well."""
        return (self, *self.also)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message on its way to one hop, for the addresses it has there."""

    message: Message
    targets: tuple[Target, ...]

    def recipient(self, target: Target) -> Recipient:
        """What RCPT asked for on behalf of all that this target serves."""
        recipients = self.message.envelope.recipients
        if not target.also:
            return recipients[target.number]
        return Recipient.merged([recipients[each.number] for each in target.served])


class IRouter(Interface):
    """Forward-path to hop.  Asked at RCPT time and again at delivery time, never stored."""

    def is_ours(domain: str) -> bool:
        """Whether we are the last stop for this domain."""

    def route(address: Mailbox, reverse_path: Mailbox = NULL_PATH) -> Sequence[tuple[Mailbox, Hop]]:
        """The final addresses that this one stands for, each with its hop, none twice.

        Where it leads elsewhere, the hop may depend on the sender, `reverse_path`.
        Raises Refusal (550 5.1.1, 5.4.6 for an alias loop...) where it can't be delivered.
        """

    def rewritten(reverse_path: Mailbox, forwarder: Mailbox) -> Mailbox:
        """The reverse-path under which mail for an address of ours, `forwarder`, goes on elsewhere.

        Bounces to it find their way to the original one.
        """


class IMailSource(Interface):
    """The deliveries that wait for one hop, handed out one at a time."""

    async def next() -> Delivery | None:
        """The next delivery; None when there is none now, or no more are to be sent."""

    async def wait() -> bool:
        """Wait for mail: True when `next` may have some, False when no more will come.

        May be cancelled without harm.
        """

    def report(delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """Report one outcome for each target, in order.  Each delivery is settled once."""

    def return_unsent(delivery: Delivery) -> None:
        """Leave a delivery to another connection: on this one, the peer said nothing to it."""


class IHeldSource(IMailSource):
    """The mail held for a peer, for one connection."""

    def close() -> None:
        """The connection is over: what was not settled goes on waiting."""


class IHeldMail(Interface):
    """The mail held for peers."""

    async def count(peer: str, domains: Collection[str], most: int) -> int:
        """How many messages wait for a peer and some of its domains, counted up to `most`.

        With what was accepted a moment ago.  Raises OSError.
        """

    def open(peer: str, domains: Collection[str], linger: float) -> IHeldSource:
        """Its mail for some of its domains, for one connection, which must `close` it at its end.

        `linger`: seconds that it waits for more.
        """


class ITurnedRoles(Interface):
    """What becomes of a peer's wish for its mail.  Both raise Refusal."""

    def hand_over(peer: Peer, domains: Sequence[str]) -> IRole:
        """The role that sends the peer its mail on the connection that it turned."""

    def start_run(peer: Peer, domains: Sequence[str]) -> None:
        """Send the peer its mail on a connection of our own (RFC 1985)."""


class HopFailure(Exception):
    """A hop can't be reached: `outcome` is what it means for all mail that waits for it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome.reply))
        self.outcome = outcome


@dataclass(slots=True)
class Pressure:
    """Whether hops wait for a connection, so that no other should hold one in silence."""

    is_scarce: bool = False


class IDeliveryAgent(Interface):
    """A mechanism that takes messages over."""

    async def deliver(hop: Hop, mail: IMailSource) -> None:
        """Deliver what `mail` hands out until it hands out None, or as much as pays at once.

        Raises HopFailure where the hop as a whole failed.  What was taken and not settled
        when this ends is deferred.
        """


# --- the tools of the person in charge ---------------------------------------------


@dataclass(frozen=True, slots=True)
class Filter:
    """Which queued messages a tool means: all that fit every part that is given.

    `older` is in seconds; `state` is ``active``, ``waiting``, ``held``, ``damaged`` or, of those
    that are held, ``on-hold`` for what a person, or the program itself, keeps.
    """

    ids: frozenset[str] = frozenset()
    reverse_path: str = ""
    forward_path: str = ""
    domain: str = ""
    peer: str = ""
    older: float = 0.0
    state: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A queued message as the tools show it; `due`: seconds since the epoch.

    `on_hold`: by a person, until it is released.
    `reason` says why the program keeps it, or what is damaged; then `message` is what can be read.
    """

    message: Message
    state: str
    due: float
    on_hold: bool = False
    reason: str = ""


class IQueueTools(Interface):
    """The spool as the command line sees it, with the server up or down.  Blocking."""

    def find(wanted: Filter) -> Iterator[Entry]:
        """The messages that fit, oldest first, read in bounded portions."""

    def hold(ids: Collection[str]) -> Collection[str]:
        """Keep messages in the spool until `release`; returns which were changed.

        What is on its way to a next hop at this moment is kept when that ends.
        """

    def release(ids: Collection[str]) -> Collection[str]:
        """Undo `hold`, and let the messages be tried at once; returns which."""

    def retry(ids: Collection[str]) -> Collection[str]:
        """Make messages due now; returns which."""

    def delete(ids: Collection[str]) -> Collection[str]:
        """Remove messages without a notice; returns which."""

    def bounce(bounced: Sequence[tuple[Message, Notice | None]]) -> Collection[str]:
        """Remove messages that nobody works on, and put their notices in; returns which.

        All of it is one commit.  A message that was attempted since it was read stays.
        """

    def count(wanted: Filter) -> int:
        """How many messages fit."""


class INotices(Interface):
    """Writes delivery status notifications (RFC 3464)."""

    async def notice(
        message: Message, reports: Sequence[tuple[Target, Outcome]], expires: float
    ) -> Notice | None:
        """One notice about these outcomes to the sender of `message`.

        Where the reverse-path is null, a failure is reported to our postmaster instead, and a
        failure of that report to nobody (RFC 5321 section 6.1).  None where nobody is to be told
        or asked for it (NOTIFY).  `expires`: until when a DEFERRED message is retried.
        """


class IMeter(Interface):
    """Counts what happens, for whoever watches.  Called often: it must be quick."""

    def know(hops: Collection[Hop]) -> None:
        """These are the hops of the configuration: attempts are told apart by them alone."""

    def session(service: Service) -> None:
        """A connection was taken."""

    def accepted(service: Service) -> None:
        """A message was taken over."""

    def replied(reply: Reply) -> None:
        """A client was given a reply."""

    def attempted(hop: Hop, outcome: Outcome) -> None:
        """There was an attempt to deliver to one recipient."""

    def committed(jobs: int, seconds: float) -> None:
        """So many jobs were committed together, in so many seconds."""


class IResolver(Interface):
    """The domain name system, as far as mail needs it."""

    async def mx(domain: str) -> Sequence[tuple[int, str]]:
        """The MX records as (preference, host), empty where there are none.

        Raises DomainNotFound (NXDOMAIN) or ResolutionFailed (try again).
        """

    async def addresses(host: str) -> Sequence[str]:
        """The A and AAAA records, in the order to try them; an IP address is its own."""


class IOwnHost(Interface):
    """This host, as others may know it: mail for elsewhere must not go there."""

    def is_named(host: str) -> bool:
        """Whether that is a name of this host."""

    def is_at(address: str) -> bool:
        """Whether that is an address of this host."""


class ResolutionFailed(Exception):
    """The name servers did not answer: try again later."""


class DomainNotFound(Exception):
    """The name does not exist: trying again won't help."""
