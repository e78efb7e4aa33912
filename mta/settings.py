"""The configuration as frozen values, with their defaults.

`mta.config` reads them from YAML.  Units: durations in seconds, sizes in octets.  Every room
takes the value that concerns it as a constructor argument.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from mta.inspection_settings import AllowList, BlockList, Greylist
from mta.mail import Agent, Hop, Mailbox
from mta.peer_settings import KnownDomain
from mta.peer_settings import Peer as Peer

Network = IPv4Network | IPv6Network

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
KIB, MIB, GIB = 2**10, 2**20, 2**30
POSTGRES = "postgresql://"  # how the URL of a spool in a database begins


class Service(Enum):
    """The purpose of a listener."""

    SMTP = "smtp"
    SUBMISSION = "submission"  # RFC 6409
    LMTP = "lmtp"  # RFC 2033
    ODMR = "odmr"  # RFC 2645


class ListenerTLS(Enum):
    """The use of TLS on a listener."""

    OFF = "off"
    OPPORTUNISTIC = "opportunistic"
    REQUIRED = "required"
    IMPLICIT = "implicit"


@dataclass(frozen=True, slots=True)
class Listener:
    """One place where mail comes in.

    `endpoint` is a Twisted server endpoint string.  `allow_cleartext_auth`:
    passwords are taken without TLS, from a proxy on this host.
    """

    endpoint: str
    service: Service = Service.SMTP
    tls: ListenerTLS = ListenerTLS.OPPORTUNISTIC
    allow_cleartext_auth: bool = False


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """A PEM certificate (leaf first) and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """Our certificates, and the authorities that we trust.

    No pair: a self-signed one is made.

    `certificates` hold further pairs, chosen by SNI.  `ca` None means the system's.
    `client_ca`: who may issue client certificates; None: none are asked for.
    """

    pair: CertificatePair | None = None
    certificates: tuple[CertificatePair, ...] = ()
    ca: Path | None = None
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """The addresses that a mailbox is forwarded to.  `keep`: mail stays as well."""

    to: tuple[Mailbox, ...]
    keep: bool = False


class KeyState(Enum):
    """The use that is made of a DKIM key."""

    NEXT = "next"  # its record is published, nothing is signed with it yet
    ACTIVE = "active"
    RETIRING = "retiring"  # its record stays for mail that is on the way


@dataclass(frozen=True, slots=True)
class DKIMKey:
    """A private key of a domain, and its selector (RFC 6376)."""

    selector: str
    file: Path
    state: KeyState = KeyState.ACTIVE


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain that we are the last stop for.

    `mailboxes` None means any local part.  `aliases` map a local part in lower case to the
    mailboxes it stands for, `forward` that of a mailbox to where its mail goes on to.
    `quota`: octets that each mailbox may have in its Maildir; 0: no bound.
    `alias_of`: the domain that this one is only another name for, or empty.  `mailboxes_elsewhere`:
    nothing is configured of mailboxes, and the peer whose mail it is may tell them.  `told`: what
    it told, where its answers count first.
    `dkim`: its keys, in all states.
    """

    name: str
    deliver: Hop
    mailboxes: frozenset[str] | None = frozenset()
    aliases: Mapping[str, tuple[Mailbox, ...]] = field(default_factory=dict)
    catch_all: Mailbox | None = None
    subaddress: str = "+"
    forward: Mapping[str, Forward] = field(default_factory=dict)
    quota: int = 0
    alias_of: str = ""
    mailboxes_elsewhere: bool = False
    told: KnownDomain | None = None
    dkim: tuple[DKIMKey, ...] = ()

    @property
    def signing_keys(self) -> tuple[DKIMKey, ...]:
        """The keys that mail of this domain is signed with."""
        return tuple(key for key in self.dkim if key.state is KeyState.ACTIVE)


class OnFailure(Enum):
    """The fate of mail while a filter fails."""

    TEMPFAIL = "tempfail"
    ACCEPT = "accept"
    REJECT = "reject"
    QUARANTINE = "quarantine"


class Source(Enum):
    """A source of mail that a filter looks at."""

    SMTP = "smtp"
    SUBMISSION = "submission"
    LMTP = "lmtp"
    SENDMAIL = "sendmail"  # programs of this host


@dataclass(frozen=True, slots=True)
class MilterTimeouts:
    """The seconds for a connection, a command, a part of content."""

    connect: float = 30.0
    command: float = 30.0
    content: float = 300.0


@dataclass(frozen=True, slots=True)
class Milter:
    """A filter that speaks the milter protocol.

    `socket` is ``inet:HOST:PORT`` or ``unix:PATH``, with an absolute path.
    """

    socket: str
    name: str
    services: frozenset[Source] = frozenset(Source)
    on_failure: OnFailure = OnFailure.TEMPFAIL
    timeouts: MilterTimeouts = MilterTimeouts()


@dataclass(frozen=True, slots=True)
class Relay:
    """Networks that may relay without AUTH, or speak for others by XCLIENT.

    Those of `xforward` may tell where their mail comes from, and get no right by that.
    `private_exchangers`: mail goes to hosts in private networks where the MX records of a domain
    lead there.
    """

    networks: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    xclient: tuple[Network, ...] = ()
    xforward: tuple[Network, ...] = ()
    private_exchangers: bool = True


class Judgement(Enum):
    """The use that is made of the results of SPF or DMARC."""

    OFF = "off"
    RECORD = "record"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class JunkUse(Enum):
    """The handling of mail that is taken for junk."""

    HEADER = "header"
    FOLDER = "folder"
    HOLD = "hold"


class OnDNSError(Enum):
    """The handling of mail that can't be judged without the DNS."""

    ACCEPT = "accept"
    DEFER = "defer"


@dataclass(frozen=True, slots=True)
class Authentication:
    """The authentication of senders, for mail from outside.

    `authserv_id` is empty for the hostname.  `trusted_forwarders` are confirmed names of clients,
    those that begin with a dot for all below, and networks.
    """

    authserv_id: str = ""
    spf: Judgement = Judgement.RECORD  # never QUARANTINE
    dkim: bool = True
    dmarc: Judgement = Judgement.QUARANTINE
    on_dns_error: OnDNSError = OnDNSError.ACCEPT
    trusted_forwarders: tuple[str | Network, ...] = ()
    reports: str = "off"  # or daily
    junk: JunkUse = JunkUse.FOLDER

    @property
    def has_reports(self) -> bool:
        """Tell whether domains are told how mail in their name fared."""
        return self.reports == "daily"


@dataclass(frozen=True, slots=True)
class Submission:
    """The terms for users who hand us mail (RFC 6409).

    `hide_client`: the mail does not tell where they are.  `expn`: they may ask who is behind an
    alias.  `channel_binding`: SCRAM-SHA-256-PLUS is offered to them.
    `scram`: the users file has keys for SCRAM.
    """

    hide_client: bool = False
    expn: bool = False
    channel_binding: bool = False
    scram: bool = True


@dataclass(frozen=True, slots=True)
class Queue:
    """The working off of queued mail.

    A connection to a next hop carries at most `connection_messages`, none after `connection_age`,
    and stays open for `connection_idle` without mail.
    """

    retry: tuple[float, ...] = (60.0, 300.0, 900.0, 1800.0, HOUR, 2 * HOUR, 4 * HOUR)
    warn_after: float = 4 * HOUR
    give_up_after: float = 5 * DAY
    concurrency: int = 100
    per_destination: int = 10
    connection_messages: int = 1000
    connection_age: float = 5 * MINUTE
    connection_idle: float = 2.0
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on what a peer may ask of us.

    `free_space`: no mail is taken while the disk of the spool has fewer octets left.
    `greet_delay`: how long the greeting is held back, to see who talks before it; 0: not at all.
    `messages_per_minute` and `recipients_per_hour` count for a user where there is one, else
    for a host; `recipients_per_day` for a user or a host of ours.  `failures_per_hour`: recipients
    of a user that other hosts refuse, before the user is suspended.  0: no limit.
    """

    message_size: int = 50 * MIB
    recipients: int = 1000
    connections: int = 1000
    connections_per_host: int = 50
    errors: int = 20
    timeout: float = 5 * MINUTE
    greet_delay: float = 0.0
    auth_failures: int = 10
    messages_per_minute: int = 0
    recipients_per_hour: int = 0
    recipients_per_day: int = 0
    failures_per_hour: int = 0
    free_space: int = 64 * MIB


@dataclass(frozen=True, slots=True)
class UserLimits:
    """The limits of one user; None: those of `Limits` count."""

    messages_per_minute: int | None = None
    recipients_per_hour: int | None = None
    recipients_per_day: int | None = None
    failures_per_hour: int | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """The rights of a user to send mail."""

    is_suspended: bool = False
    limits: UserLimits = UserLimits()


@dataclass(frozen=True, slots=True)
class Log:
    """The form of events in the log, and its file.

    `file` is an absolute path, empty for `twistd`'s own.
    """

    format: str = "text"
    level: str = "info"
    file: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration file.

    `routes` are by domain of the recipient; `senders`, by address or domain of the sender,
    stand before `default_route`.
    """

    hostname: str
    spool: str = "/var/spool/mta"
    database: str = field(default="", repr=False)  # the URL of a spool that several nodes share
    node: str = ""  # the name of this one of them; empty where there is no `database`
    run_as: str = ""  # the user that the server becomes where root starts it; empty: refused
    listen: tuple[Listener, ...] = ()
    tls: TLSSettings = TLSSettings()
    resolver: tuple[tuple[str, int], ...] = ()
    own_addresses: tuple[str, ...] = ()  # that lead here, though no interface has them
    domains: Mapping[str, Domain] = field(default_factory=dict)
    routes: Mapping[str, Hop] = field(default_factory=dict)
    senders: Mapping[str, Hop] = field(default_factory=dict)
    default_route: Hop = field(default_factory=lambda: Hop(Agent.MX))
    relay: Relay = Relay()
    signature_lifetime: float = 0.0  # seconds: after which ours expire; 0: never
    authentication: Authentication | None = None
    submission: Submission = Submission()
    users: str = ""  # absolute path of the users file, or dovecot:SOCKET; empty: no users
    peers: Mapping[str, Peer] = field(default_factory=dict)
    queue: Queue = Queue()
    limits: Limits = Limits()
    block_lists: tuple[BlockList, ...] = ()
    allow_lists: tuple[AllowList, ...] = ()
    greylist: Greylist = field(default_factory=Greylist)
    log: Log = Log()
    milters: tuple[Milter, ...] = ()  # in the order in which they are asked
    metrics: str = ""  # a Twisted server endpoint string; empty: none

    @property
    def home_domain(self) -> str:
        """The domain of addresses that name none."""
        return home_domain(self.hostname, self.domains)

    def signing_domain(self, name: str) -> str:
        """The domain whose keys sign for a name.

        It is the name itself or the nearest domain above it that has keys; empty where none has.
        """
        signing = [each for each, domain in self.domains.items() if domain.signing_keys]
        return _nearest(name, signing)

    @property
    def hops(self) -> frozenset[Hop]:
        """Every next hop that is named, those of peers included."""
        peers = self.peers.values()
        return frozenset(
            [
                self.default_route,
                *self.routes.values(),
                *self.senders.values(),
                *(domain.deliver for domain in self.domains.values()),
                *(hop for peer in peers for hop in (peer.connect, peer.etrn) if hop is not None),
            ]
        )

    @property
    def local_names(self) -> frozenset[str]:
        """Names of this host in its mail, but for domains of ours."""
        return frozenset({"localhost", "localhost.localdomain", self.hostname} - set(self.domains))


def home_domain(hostname: str, domains: Collection[str]) -> str:
    """The domain of ours that is nearest to this host's name.

    Else it is the first of them, or that name where there are none.
    """
    return _nearest(hostname, domains) or next(iter(domains), hostname)


def _nearest(name: str, domains: Collection[str]) -> str:
    while name and name not in domains:
        name = name.partition(".")[2]
    return name
