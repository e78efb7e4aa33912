"""The seams of the house: what each room promises the others.

The rooms meet here and are joined in `mta.service` by constructor arguments.  An interface has
at most five methods; those that one object fulfils together are joined by inheritance, so that
each user names the part that it needs.  Every implementation has a ``verifyObject`` test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from zope.interface import Attribute, Interface

from mta.mail import NULL_PATH, Envelope, Hop, Mailbox, Outcome, Recipient, Reply
from mta.queued import Delivery, IDraft, Message, Notice, Settlement, Target
from mta.session import Ban, LogInRecord, Session, TLSInfo
from mta.settings import Peer, Service

# --- one connection, two roles -----------------------------------------------


class IConnection(Interface):
    """The octets of one connection, and its end."""

    wire = Attribute("an `mta.smtp.wire.Wire`: what has arrived and is not yet read")
    remote_address: str = Attribute(
        "the address of the other end, as Received: shows it; 'unix' for a local one"
    )
    tls: TLSInfo | None = Attribute("TLS, where it is on")
    closing: bool = Attribute("whether the service is stopping, so that nothing new should begin")

    def write(data: bytes) -> None:
        """Send octets, in order.

        All that is written before the role waits goes out together.
        """

    async def receive(end: float) -> None:
        """Return when something was added to `wire`, or `closing` became true.

        What was written has by then been taken by the peer but for a bounded rest; `end`: the
        time by `seconds` at which all of it must have happened.  Raises ChannelLost when the
        connection ends first, ChannelTimeout when time does.
        """

    async def drain(end: float) -> bool:
        """Wait until more can be written without piling it up.

        Returns False where octets arrived first: a role that writes much reads between, as a peer
        that can't get rid of its replies takes nothing.  Raises as `receive` does.
        """

    async def start_tls() -> None:
        """Begin TLS, dropping what was read but not used.

        Raises HandshakeFailed.
        """

    def abort() -> None:
        """End the connection now: a role that waits for it gets ChannelLost."""


class ISessionClock(Interface):
    """The time of a conversation."""

    def seconds() -> float:
        """The time on a clock that only goes forward."""

    async def sleep(seconds: float) -> None:
        """Return when that time has passed, whatever arrives meanwhile."""


class IIdleWait(Interface):
    """A connection that is held open until there is mail for it."""

    async def wait_idle(event: Coroutine[Any, Any, bool], seconds: float) -> bool | None:
        """Wait for `event` while nothing arrives on the connection; returns its result.

        None: so much time has passed, or octets arrived; `event` is then cancelled.
        Raises ChannelLost.
        """

    def notice_loss(seconds: float) -> None:
        """Let the system end a connection whose peer acknowledges nothing for so long."""


class IChannel(IConnection, ISessionClock, IIdleWait):
    """The connection under a role, with all that a role may do with it."""


class IRole(Interface):
    """Receiver-SMTP or sender-SMTP: one side of one SMTP conversation."""

    async def converse(channel: IChannel) -> IRole | None:
        """Hold one conversation; return the role to take next, None to close.

        May raise ChannelLost, which ends the connection quietly.
        """


# --- access --------------------------------------------------------------------


class ILogInStore(Interface):
    """The bans and log-ins that all processes know of.

    What can't be kept is logged; no method raises.
    """

    async def changed() -> LogInRecord | None:
        """All of it, if it is not what it was the last time; else None."""

    def add_ban(ban: Ban) -> None:
        """Keep one more ban."""

    def add_proven(host: str, user: str) -> None:
        """Keep that a user has logged in from a host."""


class ILogInPolicy(Interface):
    """The cost of failed log-ins.  `auth` raises `mta.smtp.errors.Refusal`."""

    async def auth(session: Session) -> None:
        """May this session try AUTH now?"""

    def authenticated(session: Session, user: str) -> float:
        """Note that AUTH proved that user; returns seconds to hold the reply back."""

    def auth_failed(session: Session, user: str, is_known: bool) -> float:
        """Note that AUTH failed for that name, perhaps of a user.

        Returns seconds as `authenticated` does.
        """


class IContentPolicy(Interface):
    """The rules for what a header section says.  Refuses by `mta.smtp.errors.Refusal`."""

    def checks_authors(session: Session) -> bool:
        """Return whether a person submits here, and not a peer what others wrote."""

    def header_section(envelope: Envelope, octets: bytes) -> None:
        """May content that begins so go to those recipients?"""

    def header_from(session: Session, mailbox: Mailbox) -> None:
        """May this session name that mailbox as the author of a message (From:)?"""


class IAccessPolicy(ILogInPolicy, IContentPolicy):
    """The rules for clients and transactions.

    `connect`, `mail` and `rcpt` raise `mta.smtp.errors.Refusal`.
    """

    async def connect(session: Session) -> None:
        """May this client talk to us at all?  Asked before the greeting.

        It waits for nothing: the client's TLS handshake may have begun.
        """

    async def mail(session: Session, reverse_path: Mailbox) -> None:
        """May this session begin a transaction with that reverse-path?"""

    async def rcpt(session: Session, reverse_path: Mailbox, recipient: Recipient) -> None:
        """May this session send to that recipient, and does it exist?"""

    def disconnect(session: Session) -> None:
        """Note that the session is over, however it ended."""

    def is_outsider(session: Session) -> bool:
        """Return whether the client is neither a user nor a host of ours."""


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


class IReversal(Interface):
    """Role reversal, as the receiver offers it.  Its coroutines raise Refusal."""

    def methods(session: Session) -> Collection[str]:
        """The methods among TURN, ATRN and ETRN that EHLO shows to this session."""

    async def turn(session: Session) -> IRole:
        """The role to take after 250 to TURN (RFC 821 section 3.8)."""

    async def atrn(session: Session, domains: Sequence[str]) -> IRole:
        """The role to take after 250 to ATRN (RFC 2645).

        No `domains`: all that the peer has.
        """

    async def etrn(session: Session, option: str, name: str) -> Reply:
        """Start a queue run (RFC 1985); `option` is ``@``, ``#`` or empty."""


# --- the spool -------------------------------------------------------------------


class ISpool(Interface):
    """The store of accepted mail.  What was committed survives a power loss."""

    def draft() -> IDraft:
        """A place to write content that arrives."""

    async def commit(draft: IDraft, envelope: Envelope) -> Message:
        """Take responsibility for a message (RFC 5321 section 6.1).

        Returns once content and envelope are on stable storage; the message is leased to this
        process, or on hold.  Raises SpoolFull (answer 452) or OSError (answer 451); then nothing
        is left behind.
        """


class ILeases(Interface):
    """Queued messages, leased to one process at a time."""

    async def lease_due(limit: int) -> Sequence[Message]:
        """Lease at most `limit` messages that are due, the longest overdue first."""

    async def lease(ids: Collection[str]) -> Sequence[Message]:
        """Lease those of these messages that are free and not on hold, due or not."""

    async def next_due() -> float | None:
        """The time of the next due message, seconds since the epoch; None: nothing waits."""

    async def release(dues: Mapping[str, float]) -> None:
        """Give up leases without an attempt.

        Each message is due, for any process, at its time: seconds since the epoch, past for
        at once.
        """


class IHeldLeases(Interface):
    """Messages that wait for a peer.

    Only what waits with a final address in `domains` counts (or below, for ``.domain``;
    anywhere, for ``.``).
    """

    async def lease_held(peer: str, domains: Collection[str], limit: int) -> Sequence[Message]:
        """Lease at most `limit` messages held for a peer, oldest first."""

    async def count_held(peer: str, domains: Collection[str], limit: int) -> int:
        """The number of messages that wait for a peer, counted up to `limit`."""


class IAttemptRecords(Interface):
    """The record of what became of messages that are leased to us."""

    async def settle(settlement: Settlement) -> Sequence[Message]:
        """Record an attempt and give up the lease; returns its notices, leased to us."""

    async def remove(ids: Collection[str], delay: float) -> None:
        """Remove messages with which nothing is left to do.

        It may take `delay` seconds until that is recorded.  Raises OSError; then none is
        removed, and we keep the leases.
        """

    async def recalled(ids: Collection[str]) -> Collection[str]:
        """Those of these messages that the operator removed or put on hold."""

    async def postpone(
        dues: Mapping[str, float], warn_after: float, give_up_after: float
    ) -> Mapping[str, int]:
        """Put off what is due and waits for nothing but these hops, as `str` has them.

        `dues`: when each is due anew, seconds since the epoch; no later than its sender has to be
        told, by the seconds that follow.  Returns how many messages of a bounded portion, by hop.
        Raises OSError.
        """


class IQueue(ILeases, IHeldLeases, IAttemptRecords):
    """The runner's side of the spool."""


class IAttempts(Interface):
    """The messages that this process tries at this moment.

    A process that takes over from it may ask.
    """

    def begin_attempt(id: str) -> bool:
        """Note that an attempt for a message leased to us begins; several may go on at once.

        False where we stood still for so long that others may have the message: do not try it.
        """

    def end_attempt(id: str) -> None:
        """Note that one of them is over, however it went."""


# --- the queue ---------------------------------------------------------------------


class IRouter(Interface):
    """Forward-path to hop.  Asked at RCPT time and again at delivery time, never stored."""

    def is_ours(domain: str) -> bool:
        """Return whether we are the last stop for this domain."""

    def route(address: Mailbox, reverse_path: Mailbox = NULL_PATH) -> Sequence[tuple[Mailbox, Hop]]:
        """The final addresses of this one, each with its hop, none twice.

        Where it leads elsewhere, the hop may depend on the sender, `reverse_path`.
        Raises Refusal (550 5.1.1, 5.4.6 for an alias loop...) where it can't be delivered.
        """

    def rewritten(reverse_path: Mailbox, forwarder: Mailbox) -> Mailbox:
        """The reverse-path of mail that `forwarder`, an address of ours, sends on.

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
        """Report one outcome for each target, in order, once for each delivery."""

    def return_unsent(delivery: Delivery) -> None:
        """Leave a delivery to another connection: this peer said nothing to it."""


class IHeldSource(IMailSource):
    """The mail held for a peer, for one connection."""

    def close() -> None:
        """End it with its connection: what was not settled goes on waiting."""


class IHeldMail(Interface):
    """The mail held for peers."""

    async def count(peer: str, domains: Collection[str], limit: int) -> int:
        """The number of messages that wait for a peer, counted up to `limit`.

        With what was accepted a moment ago.  Raises OSError.
        """

    def open(peer: str, domains: Collection[str], linger: float) -> IHeldSource:
        """Its mail for some of its domains, for one connection.

        The connection must `close` it at its end.  `linger`: seconds that it waits for more.
        """


class ITurnedRoles(Interface):
    """The answers to a peer that wants its mail.  Both raise Refusal."""

    def hand_over(peer: Peer, domains: Sequence[str]) -> IRole:
        """The role that sends the peer its mail on the connection that it turned."""

    def start_run(peer: Peer, domains: Sequence[str]) -> None:
        """Send the peer its mail on a connection of our own (RFC 1985)."""


class IDeliveryAgent(Interface):
    """A mechanism that takes messages over."""

    async def deliver(hop: Hop, mail: IMailSource) -> None:
        """Deliver what `mail` hands out until it hands out None, or less.

        An agent may stop when that pays.  Raises HopFailure where the hop as a whole failed.
        What was taken and not settled when this ends is deferred.
        """


class INotices(Interface):
    """Writes delivery status notifications (RFC 3464)."""

    async def notice(
        message: Message, reports: Sequence[tuple[Target, Outcome]], expires: float
    ) -> Notice | None:
        """One notice about these outcomes to the sender of `message`.

        Where the reverse-path is null, a failure is reported to our postmaster instead, and a
        failure of that report not at all (RFC 5321 section 6.1).  None where no notice is due
        or asked for (NOTIFY).  `expires`: until when a DEFERRED message is retried.
        """


# --- numbers -------------------------------------------------------------------------


class ISessionMeter(Interface):
    """Counts what happens in sessions.  Called often: it must be quick."""

    def session(service: Service) -> None:
        """Count a connection that was taken."""

    def accepted(service: Service) -> None:
        """Count a message that was taken over."""

    def replied(reply: Reply) -> None:
        """Count a reply to a client."""


class IDeliveryMeter(Interface):
    """Counts attempts to deliver."""

    def know(hops: Collection[Hop]) -> None:
        """Take the hops of the configuration: attempts are told apart by them alone."""

    def attempted(hop: Hop, outcome: Outcome) -> None:
        """Count an attempt to deliver to one recipient."""


class ICommitMeter(Interface):
    """Counts commits of the spool."""

    def committed(jobs: int, seconds: float) -> None:
        """Count so many jobs that were committed together, in so many seconds."""


class IMeter(ISessionMeter, IDeliveryMeter, ICommitMeter):
    """Counts all that metrics show."""


# --- hosts and names -----------------------------------------------------------------


class IResolver(Interface):
    """The domain name system, as far as mail needs it."""

    async def mx(domain: str) -> Sequence[tuple[int, str]]:
        """The MX records as (preference, host), empty where there are none.

        Raises DomainNotFound (NXDOMAIN) or ResolutionFailed (try again).
        """

    async def addresses(host: str) -> Sequence[str]:
        """The A and AAAA records, in the order to try them; an IP address is its own."""


class ResolutionFailed(Exception):
    """The name servers did not answer: try again later."""


class DomainNotFound(Exception):
    """The name does not exist: trying again won't help."""


class IOwnHost(Interface):
    """This host, as others may know it: mail for elsewhere must not go there."""

    def is_named(host: str) -> bool:
        """Return whether that is a name of this host."""

    def is_at(address: str) -> bool:
        """Return whether that is an address of this host."""
