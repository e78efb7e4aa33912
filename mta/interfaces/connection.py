"""A connection, and the roles that take it."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from zope.interface import Attribute, Interface

from mta.mail import Reply, Security
from mta.session import RecipientAnswer, RecipientQuestion, TLSInfo


class IConnection(Interface):
    """The octets of one connection, and its end."""

    wire = Attribute("an `mta.smtp.wire.Wire`: what has arrived and is not yet read")
    remote_address: str = Attribute(
        "the address of the other end, as Received: shows it; 'unix' for a local one"
    )
    remote_port: int = Attribute("the port of the other end, 0 where it has none")
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

    async def start_tls(early: bytes = b"") -> None:
        """Begin TLS, dropping what was read but not used.

        `early`: octets of the peer's handshake that have come already.  Raises HandshakeFailed.
        """

    def abort() -> None:
        """End the connection now: a role that waits for it gets ChannelLost."""


class ISessionClock(Interface):
    """The time of a conversation."""

    def seconds() -> float:
        """The time on a clock that only goes forward."""

    async def sleep(seconds: float) -> None:
        """Return when that time has passed, whatever arrives meanwhile.

        Raises ChannelLost when the connection is gone: what it asked for is not worth the time.
        """


class IRoundRobin(Interface):
    """An order of those that have much to do: others come between."""

    async def next(who: int, host: str) -> None:
        """Wait until it is the time of one of them.  `who`: a number that no other has."""

    async def next_message(host: str) -> None:
        """Wait for the time of a message, where other hosts are there."""

    async def next_portion(cost: float = 0.0) -> None:
        """Wait for the time of a portion of work on queued mail.

        `cost`: the seconds that a thread will take for it.
        """

    def other_came(host: str) -> None:
        """Note that one of this host, with little to do, is there."""


class IIdleWait(Interface):
    """A connection that is held open until there is mail for it."""

    async def wait_idle(event: Coroutine[Any, Any, bool], seconds: float) -> bool | None:
        """Wait for `event` while nothing arrives on the connection; returns its result.

        None: so much time has passed, or octets arrived; `event` is then cancelled.
        Raises ChannelLost.
        """

    def notice_loss(seconds: float) -> None:
        """Let the system end a connection whose peer acknowledges nothing.

        After so many seconds.
        """


class IChannel(IConnection, ISessionClock, IIdleWait):
    """The connection under a role: all that a role may use."""


class IRole(Interface):
    """Receiver-SMTP or sender-SMTP: one side of one SMTP conversation."""

    async def converse(channel: IChannel) -> IRole | None:
        """Hold one conversation; return the role to take next, None to close.

        May raise ChannelLost, which ends the connection quietly.
        """


class ITurnReplies(Interface):
    """Takes the replies to a request for our mail: TURN, ATRN, ETRN."""

    def replied(reply: Reply) -> None:
        """Note a reply, before the next role takes the connection."""


class ILinkWatch(Interface):
    """Hears how a connection fares."""

    def measured(round_trip: float) -> None:
        """Note the seconds until a command that needs no work was answered."""


class IQuestions(Interface):
    """Questions about recipients that a sender is to ask the peer."""

    are_waiting: bool = Attribute("whether any is to be asked now")

    def take(limit: int) -> Sequence[RecipientQuestion]:
        """Hand out those that wait, oldest first."""

    def answered(question: RecipientQuestion, answer: RecipientAnswer) -> None:
        """Take the answer to one that was handed out."""

    async def wait() -> bool:
        """Return True when one waits.  May be cancelled without harm."""


class IFirstRoles(Interface):
    """The roles with which the connections to a listener begin."""

    def first_role(client: str) -> IRole | None:
        """Make the role for one more connection, from this address.

        None: it is refused.
        """


class ITLSContext(Interface):
    """Our side of TLS on one connection."""

    def start(transport: Any) -> None:
        """Begin the handshake on an `ITLSTransport`."""

    def info(transport: Any) -> TLSInfo:
        """The result of the finished handshake on an `ISSLTransport`."""


class IClientTLS(Interface):
    """Our demands on the servers that we dial."""

    def for_host(hostname: str, security: Security, pin: str = "") -> ITLSContext:
        """Our demands on one of them, a name or an address.

        `pin` is the SHA-256 fingerprint of the one certificate that it must show, in lower-case
        hex; empty: `security` says whether any certificate will do.
        """
