"""The values of queued mail: messages, recipients, attempts, deliveries.

`IContent` and `IDraft` are here, and not with the other interfaces, because a `Message` has
content.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from enum import Enum

from zope.interface import Attribute, Interface

from mta.mail import Envelope, Hop, Mailbox, Outcome, Recipient
from mta.session import NOTICE_ORIGIN, UNKNOWN_ORIGIN, Origin

EVERYWHERE = "."  # among domains: any domain at all
MAX_HISTORY = 20  # attempts of a recipient that are remembered: enough for a notice


class IContent(Interface):
    """The content of one message: header section and body.

    Lines end in CRLF, and dots are not stuffed.  It may be read as often as wanted, in pieces of
    some hundred KiB.  All methods raise OSError where the spool can't be read.
    """

    size: int = Attribute("octets of header section and body")
    is_ascii: bool = Attribute("whether every octet is below 128")

    async def header() -> bytes:
        """The header section, with the empty line that ends it.

        It has at most `mta.smtp.header.MAX_HEADER` octets and some fields of ours: what is beyond
        that counts as body.
        """

    def body() -> AsyncIterator[bytes]:
        """The octets behind the header section."""

    def pieces() -> AsyncIterator[bytes]:
        """The header section, and then the body."""


class IDraft(Interface):
    """A body that is still arriving.  Holds little memory, whatever the size."""

    id: str = Attribute("the queue id that the message will have")

    def address(envelope: Envelope) -> None:
        """Tell the envelope as it came, before the first octet.

        How the message is kept may depend on that.
        """

    async def write(piece: bytes) -> None:
        """Append octets.  Raises SpoolFull or OSError."""

    async def replace(other: IDraft) -> None:
        """Take over the body of another draft in place of this one's.

        The other draft is used up.  Raises SpoolFull or OSError.
        """

    def discard() -> None:
        """Forget it, and whatever of it was written."""


class SpoolFull(OSError):
    """No room for more mail: answer 452 4.3.1."""


class AlreadyTaken(Exception):
    """All recipients have the message: it was brought before."""


class State(Enum):
    """The state of one recipient of a queued message."""

    WAITING = "waiting"
    HELD = "held"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One line of a recipient's history.

    `at` is in seconds since the epoch.  `address` is the final address, where an alias leads to
    it; `remote` the host that replied.
    """

    at: float
    hop: str
    status: str
    reply: str
    address: str = ""
    remote: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one recipient of a queued message.

    An alias may stand for several final addresses: those in `settled` need no further
    attempt.  `peer` names who a HELD recipient waits for, `domain`
    is the domain of the final address that waits.
    `history` is newest last and bounded by `MAX_HISTORY`.
    """

    recipient: Recipient
    state: State = State.WAITING
    peer: str = ""
    settled: frozenset[str] = frozenset()
    history: tuple[HistoryEntry, ...] = ()
    domain: str = ""

    def with_attempt(self, attempt: HistoryEntry) -> Progress:
        """The same with one more attempt in its history."""
        return replace(self, history=(*self.history, attempt)[-MAX_HISTORY:])


@dataclass(frozen=True, slots=True)
class Message:
    """A queued message.  `arrived`: seconds since the epoch.

    `recovered` is true where an earlier owner died while it held the lease, so that a
    delivery may have happened without being recorded.  `on_hold` says why a new
    message is kept for the operator, in words: it is not leased then.
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
    origin: Origin = UNKNOWN_ORIGIN


@dataclass(frozen=True, slots=True)
class Notice:
    """A delivery status notification, for the spool.

    `header` ends in an empty line.
    """

    envelope: Envelope
    header: bytes
    body: bytes
    origin: Origin = NOTICE_ORIGIN

    @property
    def content(self) -> bytes:
        """All of it."""
        return self.header + self.body


@dataclass(frozen=True, slots=True)
class Settlement:
    """The changes of one attempt, recorded in one commit with its notices.

    `due`: when to try again, seconds since the epoch (for a message whose open recipients
    are all HELD: when they expire).  The message is removed when every recipient is DONE.
    `recovered`: a delivery may have happened that is not in `progress`.  `offered`: when a peer did
    not take what waits for it, seconds since the epoch; 0: it was not asked.
    """

    id: str
    progress: tuple[Progress, ...]
    due: float
    attempts: int
    warned: bool
    notices: tuple[Notice, ...] = ()
    recovered: bool = False
    offered: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """One final address of one recipient.

    `number` is the recipient's place in the envelope.  `forwarder` is the address of ours whose
    mail goes on elsewhere, where this is such mail.
    `also` are targets of other recipients that lead to the same mailbox: it gets one copy.
    """

    number: int
    address: Mailbox
    hop: Hop
    forwarder: Mailbox | None = None
    also: tuple[Target, ...] = ()

    @property
    def served(self) -> tuple[Target, ...]:
        """The targets that one attempt serves: itself and `also`."""
        return (self, *self.also)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message on its way to its addresses at one hop.

    `sender_waits`: for our reply, which depends on what becomes of it.
    """

    message: Message
    targets: tuple[Target, ...]
    sender_waits: bool = False

    def recipient(self, target: Target) -> Recipient:
        """The recipient, with all that RCPT asked on behalf of the target."""
        recipients = self.message.envelope.recipients
        if not target.also:
            return recipients[target.number]
        return Recipient.merged([recipients[each.number] for each in target.served])


class HopFailure(Exception):
    """A hop can't be reached.

    `outcome` is what that means for all mail that waits for it.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome.reply))
        self.outcome = outcome


@dataclass(slots=True)
class Pressure:
    """The demand for connections.

    `is_scarce`: hops wait for one, so no silent host should hold one.
    """

    is_scarce: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """The queued messages that a tool means: all parts must fit.

    `user` has logged in and sent it.  `older` is in seconds; `state` is ``active``, ``waiting``,
    ``held``, ``damaged`` or, of those that are held, ``on-hold`` for what a person, or the program
    itself, keeps.
    """

    ids: frozenset[str] = frozenset()
    reverse_path: str = ""
    forward_path: str = ""
    domain: str = ""
    peer: str = ""
    user: str = ""
    older: float = 0.0
    state: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A queued message as the tools show it.

    `due`: seconds since the epoch.  `on_hold`: by the operator, until it is released.
    `reason` says why the program keeps it, or what is damaged; then `message` is what can be read.
    """

    message: Message
    state: str
    due: float
    on_hold: bool = False
    reason: str = ""
