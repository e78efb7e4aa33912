"""Accepted mail, routing, held mail, delivery and notices."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from zope.interface import Interface

from mta.interfaces.connection import IRole
from mta.mail import NULL_PATH, Envelope, Hop, Mailbox, Outcome, Reply
from mta.queued import Delivery, IDraft, Message, Notice, Target
from mta.session import LinkKind, Origin, Session
from mta.settings import Peer


class IAcceptedMail(Interface):
    """Takes over what a session has committed."""

    def accepted(message: Message, session: Session) -> None:
        """Begin to deliver a message that was just committed."""


class IPassThrough(Interface):
    """Passes mail on while its sender waits."""

    async def pass_on(
        draft: IDraft, envelope: Envelope, header: bytes, origin: Origin, session: Session
    ) -> Reply | None:
        """Return the reply to content; None: commit it as ever.

        After a reply the draft is committed or discarded, and all is told and under way.  The
        arguments are those of `ISpool.commit`.  Raises OSError; then the draft is to be discarded.
        """


class IPassedMail(Interface):
    """Hears of mail that was passed on before it was committed."""

    def taken(message: Message, session: Session) -> None:
        """Note that we have accepted a message, whose first attempt has begun."""

    def refused(message: Message, session: Session, peer: str, reply: Reply) -> None:
        """Note that the sender was told that a peer refused the message."""


class IPickedUpMail(Interface):
    """Takes over what the maildrop has committed."""

    def picked_up(message: Message, userid: int) -> None:
        """Begin to deliver a message of this user that was just committed."""


class IOwnMail(Interface):
    """Takes over what we have written ourselves, but for notices."""

    def written(message: Message, subject: str) -> None:
        """Begin to deliver a message about some subject that was just committed."""


class IFailureWatch(Interface):
    """Hears which mail of users can't be delivered."""

    def failed(origin: Origin, number: int) -> None:
        """Note how many recipients of a message other hosts refused."""


class IPostmaster(Interface):
    """Tells the postmaster of this host what it should know."""

    async def tell(subject: str, text: str) -> None:
        """Write a message, of paragraphs with empty lines between them.

        What can't be written is logged.
        """


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
    """The deliveries that wait for one hop, one at a time."""

    async def next() -> Delivery | None:
        """The next delivery; None where there is none now."""

    async def wait() -> bool:
        """Wait for mail; returns False when no more will come.

        After True, `next` may have some.  May be cancelled without harm.
        """

    def report(delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """Report one outcome for each target, in order, once for each delivery."""

    def return_unsent(delivery: Delivery) -> None:
        """Leave a delivery to another connection: this peer said nothing to it."""


class IHeldSource(IMailSource):
    """The mail held for a peer, for one connection."""

    def interrupt() -> None:
        """Let `wait` return True: there is something else to do."""

    def close() -> None:
        """End it with its connection: what was not settled goes on waiting."""


class IHeldMail(Interface):
    """The mail held for peers."""

    async def count(peer: str, domains: Collection[str], limit: int) -> int:
        """Count the messages that wait for a peer, up to `limit`.

        With what was accepted a moment ago.  Raises OSError.
        """

    def open(
        peer: str, domains: Collection[str], linger: float, kind: LinkKind = LinkKind.MAIN
    ) -> IHeldSource:
        """Its mail for some of its domains, for one connection.

        The connection must `close` it at its end.  `linger`: seconds that it waits for more.
        """


class IHeldMailWatch(Interface):
    """Sees to it that mail held for a peer is sent."""

    def mail_came(peer: str) -> None:
        """Note that new mail is held for a peer."""


class ITurnedRoles(Interface):
    """The answers to a peer that wants its mail.  Both raise Refusal."""

    def sender_for(peer: Peer, domains: Sequence[str], kind: LinkKind) -> IRole:
        """The role that sends the peer its mail on its own connection."""

    def start_run(peer: Peer, domains: Sequence[str]) -> None:
        """Send the peer its mail on a connection of ours (RFC 1985)."""


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
