"""The values of one SMTP session: its connection, its client, its log-ins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from mta.mail import Mailbox
from mta.settings import Service

LOCAL_ADDRESS = "unix"  # in place of the address of another host
UNKNOWN_ADDRESS = "unknown"  # where a proxy does not tell it: such a client has no rights
CLOCK_TOLERANCE = 60.0  # seconds: a clock that is set back by less does not end a ban


class ChannelLost(Exception):
    """The connection ended: no more can be read or written."""


class ChannelTimeout(ChannelLost):
    """The peer took longer than the step allows (RFC 5321 section 4.5.3.2)."""


class HandshakeFailed(ChannelLost):
    """The TLS handshake failed: the connection is of no use any more."""


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """The result of a TLS handshake.

    `certificate` is the peer's verified SHA-256 fingerprint in lower-case hex, empty where it
    showed none that we trust; `shown` is that of any that it showed, trusted or not, and
    `expires` its end, in seconds since the epoch.  `bindings` are the channel binding data by type
    (RFC 5929, RFC 9266).
    """

    version: str
    cipher: str
    certificate: str = ""
    shown: str = field(default="", compare=False)
    expires: float = field(default=0.0, compare=False)
    bindings: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    bits: int = 0  # of the key of the cipher


NOTICE = "notice"  # the service of what we write ourselves


@dataclass(frozen=True, slots=True)
class Origin:
    """The client that brought a message, and how.

    What is not known is empty.  It is kept with the message as evidence, and never gives a right.
    """

    address: str = ""  # LOCAL_ADDRESS for a program of this host
    name: str = ""  # the confirmed name of the address, where it was looked up
    port: int = 0
    hello: str = ""  # what HELO, EHLO or LHLO named
    protocol: str = ""  # the WITH keyword of the Received: field, RFC 3848
    tls_version: str = ""
    tls_cipher: str = ""
    user: str = ""  # proved by AUTH, or the number of a user of this host
    service: str = ""  # of the listener; or sendmail, maildrop, notice
    turned_peer: str = ""  # the peer on whose turned connection it came
    is_junk: bool = False  # as inspectors took it, and it is for the folder of such mail
    told_by: str = ""  # the peer or proxy that told all this by XFORWARD; else we saw it ourselves
    told_id: str = ""  # the id that the message had there
    is_internal_there: bool = False  # a user or host of that one's own brought it there

    @property
    def is_remembered(self) -> bool:
        """Tell whether the same message may come again, by the same id.

        A peer brings it on a connection that it turned, or it is a notice that each node would
        write.
        """
        return bool(self.told_id and (self.turned_peer or self.service == NOTICE))

    def without_client(self) -> Origin:
        """Return the same without what tells where the client is."""
        return replace(self, address="", name="", port=0, hello="")


UNKNOWN_ORIGIN = Origin()
NOTICE_ORIGIN = Origin(LOCAL_ADDRESS, service=NOTICE)


@dataclass(frozen=True, slots=True)
class Testimony:
    """Facts that XFORWARD tells, and no session of ours has.

    `by` is the peer or the proxy that tells it, `id` what it calls the message.  `is_internal`: a
    user or host of its own brought that.
    """

    by: str
    id: str = ""
    protocol: str = ""
    is_internal: bool = False


class LinkKind(Enum):
    """The use that a peer makes of a connection that it turns."""

    MAIN = "main"
    QUICK = "quick"  # beside the main one: for questions, and small mail while that is busy


@dataclass(slots=True)
class Session:
    """One conversation as the receiver sees it: greeting to QUIT or TURN.

    `identity` is the user that AUTH proved, empty before.  `turned_peer` is the peer on whose
    turned connection we receive, empty elsewhere; rights come from it, never from `identity`.
    `link` is what the peer says that it turns this connection for.
    `told` is there where all this was told by another server: it is evidence then, and gives no
    right.  `forwarded` is such a session, that of the client which brought the message under way;
    `sender_waits` where that client, or its sender, still waits for our reply.
    """

    service: Service
    client: str
    tls: TLSInfo | None
    turned_peer: str = ""
    hello: str = ""  # what HELO, EHLO or LHLO named
    extended: bool = False  # EHLO or LHLO
    identity: str = ""
    cleartext_auth: bool = False  # a password may come without TLS
    commands_without_mail: int = 0  # as they were counted so far
    has_brought_mail: bool = False
    host_commands_without_mail: int = 0  # the same in other sessions of the host, lately
    port: int = 0  # of the client, 0 where it is not known
    name: str = ""  # the confirmed name of the client's address, where it was looked up
    mechanism: str = ""  # of SASL, by which AUTH proved the user
    pointer: str = ""  # the name that its PTR record has, which anyone may choose
    told: Testimony | None = None
    forwarded: Session | None = None
    link: LinkKind = LinkKind.MAIN
    sender_waits: bool = False
    _origin: Origin = field(default=UNKNOWN_ORIGIN, init=False, repr=False, compare=False)

    @property
    def is_welcome(self) -> bool:
        """True once it has brought mail, or proved who it is."""
        return self.has_brought_mail or bool(self.identity)

    @property
    def outsider(self) -> Session | None:
        """The session of a told client, none of the teller's own."""
        client = self.forwarded
        if client is None or client.told is None or client.told.is_internal:
            return None
        return client

    @property
    def is_acknowledged(self) -> bool:
        """Tell whether a relay has answered the client with 250 before.

        What we refuse then goes back by a notice, to an address that may be forged.
        """
        return bool(self.turned_peer) and not self.sender_waits

    @property
    def protocol(self) -> str:
        """The WITH keyword of the Received: field (RFC 3848)."""
        if self.told is not None:
            return self.told.protocol
        name = "ESMTP" if self.extended else "SMTP"
        if self.service is Service.LMTP:
            name = "LMTP"
        return name + ("S" if self.tls else "") + ("A" if self.identity else "")

    def origin(self, *, smtputf8: bool = False) -> Origin:
        """Return the origin of a message that comes now."""
        if self.told is not None:
            return self._told_origin(self.told)
        protocol, tls = self.protocol, self.tls
        if smtputf8:
            protocol = "UTF8" + protocol.removeprefix("E")  # RFC 6531 section 4.3
        last = self._origin
        if (last.hello, last.protocol, last.user) == (self.hello, protocol, self.identity):
            return last
        self._origin = origin = Origin(
            self.client,
            self.name,
            self.port,
            self.hello,
            protocol,
            tls.version if tls else "",
            tls.cipher if tls else "",
            self.identity,
            self.service.value,
            self.turned_peer,
        )
        return origin

    def _told_origin(self, told: Testimony) -> Origin:
        return Origin(
            self.client,
            self.name,
            self.port,
            self.hello,
            told.protocol,
            service=self.service.value,
            turned_peer=self.turned_peer,
            told_by=told.by,
            told_id=told.id,
            is_internal_there=told.is_internal,
        )


@dataclass(frozen=True, slots=True)
class PairingRequest:
    """A request to be paired: the three numbers of XPAIR.

    They are in lower-case hex.  `id` names the pairing, `secret` proves the right to it.  `nonce`
    is the client's own: with the same one the request may be repeated.
    """

    id: str
    secret: str = field(repr=False)
    nonce: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing that a paired host sees, for operators to read.

    `state` is ok, unknown, warn or bad.
    """

    state: str
    text: str


@dataclass(frozen=True, slots=True)
class RecipientQuestion:
    """The question to a peer whether a mailbox of its exists.

    `reverse_path` is that of the mail which is on its way there.
    """

    reverse_path: Mailbox
    forward_path: Mailbox


class RecipientAnswer(Enum):
    """The answer to such a question."""

    YES = "yes"
    NO = "no"
    LATER = "later"  # the peer would take no mail for it now: it may well exist
    NONE = "none"  # what it said, if anything, is not about the recipient


# Of such answers: the peer now, the peer lately, the list that it told, or none of them.
ANSWER_SOURCES = ("link", "cache", "list", "unknown")


@dataclass(frozen=True, slots=True)
class Ban:
    """A ban on log-ins from a host, or of one user there.

    Times are in seconds since the epoch.  `host` is an address or a network, `user` empty for all
    users there.  `failures` is how many
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
        """The key of a ban, unique among bans."""
        return self.host, self.user

    def is_in_force(self, now: float) -> bool:
        """Return whether it counts now.

        It does not where the clock shows a time before it."""
        return self.since - CLOCK_TOLERANCE <= now < self.until


@dataclass(frozen=True, slots=True)
class LogInRecord:
    """The bans, and the users who have logged in from each host."""

    bans: tuple[Ban, ...] = ()
    proven: tuple[tuple[str, str], ...] = ()  # host and user in lower case, the latest last
