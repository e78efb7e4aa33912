"""The domain values: mailboxes, envelopes, replies, hops, outcomes (RFC 5321, RFC 5598).

All are frozen and compared by value.  Text is ``str`` here: bytes from the wire are
decoded once, in `mta.smtp`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address

import idna

_ATEXT = r"""[^\x00- "(),.:;<>@\[\\\]\x7f]"""
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")


def canonical_domain(domain: str) -> str:
    """The form in which domains are compared: lower case, A-labels (RFC 5890).

    A label that IDNA 2008 does not know stays as it is, in lower case: such names are in use,
    and only the DNS can say whether one exists.
    """
    if domain.isascii():
        return domain.lower()
    return ".".join(map(_canonical_label, domain.split(".")))


def _canonical_label(label: str) -> str:
    if label.isascii():
        return label.lower()
    try:
        encoded = idna.encode(label, uts46=True).decode("ascii")
    except idna.IDNAError:
        return label.lower()
    # What stands for a full stop, or for one with something beside it, is no label.
    return label.lower() if "." in encoded else encoded


def is_among(domain: str, domains: Collection[str]) -> bool:
    """Tell whether `domains` have that domain, or ``.`` and one above."""
    return domain in domains or any(
        name.startswith(".") and domain.endswith(name) for name in domains
    )


def is_address(host: str) -> bool:
    """Tell whether a host is named by its IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The address inside a path (RFC 5321 section 4.1.2).

    `local_part` is without quoting: that of ``"a b"@x`` is ``a b``.  `domain` has its canonical
    form, however it was written; an address literal keeps its brackets.  ``<Postmaster>`` has no
    domain, the null reverse-path has neither.
    """

    local_part: str
    domain: str = ""

    def __post_init__(self) -> None:
        if not self.domain.startswith("["):
            object.__setattr__(self, "domain", canonical_domain(self.domain))

    @property
    def is_null(self) -> bool:
        """Tell whether this is the null reverse-path ``<>``."""
        return not self.local_part and not self.domain

    @property
    def is_internationalised(self) -> bool:
        """Tell whether only a peer with SMTPUTF8 takes this address (RFC 6531)."""
        return not (self.local_part.isascii() and self.domain.isascii())

    def matches(self, other: Mailbox) -> bool:
        """Tell whether both are written alike, but for case."""
        return str(self).lower() == str(other).lower()

    def __str__(self) -> str:
        local_part = self.local_part
        if not self.is_null and not _DOT_STRING.fullmatch(local_part):
            local_part = '"' + re.sub(r'(["\\])', r"\\\1", local_part) + '"'
        return f"{local_part}@{self.domain}" if self.domain else local_part


NULL_PATH = Mailbox("")


class Notify(Enum):
    """A condition for a notice to the sender (RFC 3461 section 4.1)."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"
    NEVER = "NEVER"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One RCPT command: a forward-path and what was asked for it.

    `notify` is empty where the client named nothing; `original` is the decoded ORCPT
    value ``addr-type;address`` or empty (RFC 3461 section 4.2).
    """

    forward_path: Mailbox
    notify: frozenset[Notify] = frozenset()
    original: str = ""

    @classmethod
    def merged(cls, recipients: Sequence[Recipient]) -> Recipient:
        """One recipient for several that name the same mailbox.

        It has the forward-path of the first.  A condition counts if one of them has it, NEVER only
        if all of them do (RFC 3461 section 4.1).
        """
        first, *others = recipients
        if not others:
            return first
        asked = [each.notify for each in recipients if Notify.NEVER not in each.notify]
        notify = frozenset({Notify.NEVER})
        if asked:
            notify = frozenset().union(*(each or UNASKED for each in asked if any(asked)))
        original = next((each.original for each in recipients if each.original), "")
        return cls(first.forward_path, notify, original)


def distinct(recipients: Sequence[Recipient]) -> tuple[Recipient, ...]:
    """The recipients, those with equal forward-paths merged."""
    if len(recipients) == 1:
        return tuple(recipients)
    found: dict[Mailbox, list[Recipient]] = {}
    for recipient in recipients:
        found.setdefault(recipient.forward_path, []).append(recipient)
    return tuple(map(Recipient.merged, found.values()))


UNASKED = frozenset({Notify.FAILURE, Notify.DELAY})  # the conditions of a RCPT without NOTIFY


class Body(Enum):
    """The BODY parameter of MAIL (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"
    BINARY = "BINARYMIME"


@dataclass(frozen=True, slots=True)
class SealedForm:
    """The form of content that comes sealed.

    `header_size`: the octets of its header section, sealed by itself; the body is behind it.
    `body` is the kind of what was sealed.
    """

    header_size: int
    body: Body


@dataclass(frozen=True, slots=True)
class MailArgument:
    """The argument of MAIL.  `size` is in octets, None where it was not told.

    `auth` is the decoded AUTH parameter: the user who submitted the message, ``<>`` for unknown,
    None where it was not told (RFC 4954 section 5).  `sender_waits`: our reply goes on to the
    sender, who waits for it.  `is_question`: no content will come.
    """

    reverse_path: Mailbox
    size: int | None = None
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    require_tls: bool = False
    auth: str | None = None
    sender_waits: bool = False
    sealed: SealedForm | None = None
    is_question: bool = False


@dataclass(frozen=True, slots=True)
class Envelope:
    """The envelope of one message (RFC 5321 section 2.3.1)."""

    reverse_path: Mailbox
    recipients: tuple[Recipient, ...]
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    ret: str = ""  # "FULL", "HDRS" or not said, RFC 3461 section 4.3
    envid: str = ""  # decoded, RFC 3461 section 4.4
    require_tls: bool = False  # RFC 8689
    outside: bool = False  # from an outsider: no user, and no host of ours
    sealed: bool = False  # the content is encrypted, to the peer for which it waits


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: digits, perhaps an enhanced code, and lines.

    An enhanced code is such as ``5.1.1``, or empty.  RFC 5321 section 4.2, RFC 2034.  `lines` are
    without code, enhanced code and CRLF.
    """

    code: int
    enhanced: str
    lines: tuple[str, ...]

    @property
    def is_positive(self) -> bool:
        """Tell whether the command was carried out, or may go on.  These are 2xx and 3xx."""
        return self.code < 400

    @property
    def is_transient(self) -> bool:
        """Tell whether the same command may succeed later (4xx)."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """Tell whether the same command would fail again (5xx)."""
        return self.code >= 500

    @property
    def text(self) -> str:
        """The lines in one, for logs and notices."""
        return " ".join(self.lines)

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code), self.enhanced, self.text)))


class Agent(Enum):
    """The delivery agents: mechanisms that take a message over."""

    MX = "mx"
    SMTP = "smtp"
    LMTP = "lmtp"
    MAILDIR = "maildir"
    PIPE = "pipe"
    HOLD = "hold"
    DISCARD = "discard"
    REJECT = "reject"


class Security(Enum):
    """The demand on TLS to a next hop."""

    OFF = "off"
    OPPORTUNISTIC = "opportunistic"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Hop:
    """The next hop of a message: an agent, and its parameters.

    `next_hop` is the domain for MX, the host or ``unix:PATH`` for SMTP and LMTP, the path
    template for MAILDIR, the command for PIPE, the peer's name for HOLD, the text for REJECT.
    `xforward`: the host is told who brought its mail, where it asks for that.
    Messages with equal hops may share a connection or a batch.
    """

    agent: Agent
    next_hop: str = ""
    port: int = 0
    implicit_tls: bool = False
    security: Security = Security.OPPORTUNISTIC
    pin: str = ""  # SHA-256 fingerprint of the only certificate to trust, lower-case hex
    user: str = ""
    secret: str = field(default="", repr=False)
    xforward: bool = False
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Each message is looked up by its hop a dozen times.
        key = (self.agent, self.next_hop, self.port, self.implicit_tls)
        object.__setattr__(self, "_hash", hash((*key, self.security, self.pin, self.user)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        """The hop as the configuration has it, without secret and arguments."""
        match self.agent:
            case Agent.PIPE:
                return f"pipe:{self.next_hop.strip().partition(' ')[0]}"
            case Agent.SMTP | Agent.LMTP if self.next_hop.startswith("unix:"):
                return f"{self.agent.value}+{self.next_hop}"
            case Agent.SMTP | Agent.LMTP:
                scheme = "smtps" if self.implicit_tls else self.agent.value
                host = f"[{self.next_hop}]" if ":" in self.next_hop else self.next_hop
                return f"{scheme}://{host}:{self.port}"
            case Agent.DISCARD:
                return "discard"
            case _:
                return f"{self.agent.value}:{self.next_hop}"


class Status(Enum):
    """The result of one attempt for one recipient (RFC 3464 section 2.3.3)."""

    DELIVERED = "delivered"  # final delivery; no other server will send a notice
    RELAYED = "relayed"  # the next hop took it over
    DEFERRED = "deferred"
    FAILED = "failed"
    HELD = "held"  # waits in the spool for its peer


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one attempt for one recipient.

    `remote` is the host that replied, empty where the reply is our own.  `notifies`: the next hop
    took over the duty to send notices (RFC 3461 section 5.2.1).  `throttles`: the host took nothing
    for now, or broke off, so that it may want fewer connections.  `wait` over 0: nothing was tried,
    and there is no use in it for so many seconds.  `try_next_host`: another host of the same hop
    may accept the message all the same.  `broke_in_content`: the connection broke while the content
    was in flight, which may be the content's fault.  `untried`: the host was not asked, so that
    another connection to it is due.
    """

    status: Status
    reply: Reply
    remote: str = ""
    notifies: bool = False
    throttles: bool = field(default=False, compare=False)
    wait: float = 0.0
    try_next_host: bool = field(default=False, compare=False)
    broke_in_content: bool = field(default=False, compare=False)
    untried: bool = field(default=False, compare=False)
