"""The settings of peers, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from mta.mail import Hop, Security


class Verify(Enum):
    """The source of what we know of a peer's mailboxes."""

    OFF = "off"
    LIST = "list"  # that it tells us
    LIVE = "live"  # its answers


class Unknown(Enum):
    """The fate of mail for a mailbox of which nothing is known."""

    ACCEPT = "accept"
    DEFER = "defer"


@dataclass(frozen=True, slots=True)
class KnownDomain:
    """The mailboxes of one domain, as its office told.

    `names` are local parts in lower case; None: there is one for each name.
    """

    names: frozenset[str] | None
    subaddress: str

    def has(self, local_part: str) -> bool:
        """Tell whether there is such a mailbox."""
        name = local_part.lower()
        if self.names is None or name in self.names:
            return True
        return bool(self.subaddress) and name.partition(self.subaddress)[0] in self.names


@dataclass(frozen=True, slots=True)
class Peer:
    """A host that we change roles with.  Either it dials in, or we dial it.

    `connect` None: it dials in, and proves to be `user` or shows the `certificate` with that
    SHA-256 fingerprint (lower-case hex).  `linger`: how long a reversed connection stays open
    without mail.  `origin` is ``trust`` where its word for who brought its mail is taken.  `links`
    are the connections that we hold to it: with 2, one is for questions and small mail.
    `pass_through`: while its link stands, senders hear what it says of their mail.  `seal` is the
    file of keys for sealed mail: public ones where it dials in, else private ones.  `verify` says
    how we know the mailboxes of one that dials in, `unknown` what is done where we don't.
    """

    name: str
    domains: tuple[str, ...] = ()
    user: str = ""
    certificate: str = ""
    methods: frozenset[str] = frozenset({"atrn", "turn", "etrn"})
    hold_for: float = 20 * 86400.0  # seconds: 20 days
    warn_after: float = 0.0
    linger: float = 0.0
    keepalive: float = 60.0
    etrn: Hop | None = None
    connect: Hop | None = None
    tls: Security = Security.VERIFY
    pin: str = ""
    method: str = "atrn"
    every: float = 300.0
    send: bool = True
    origin: str = "off"  # or trust
    links: int = 1  # or 2
    pass_through: bool = False
    seal: str = ""
    verify: Verify = Verify.LIST
    unknown: Unknown = Unknown.ACCEPT

    @property
    def is_dialled(self) -> bool:
        """Tell whether we call it, again and again."""
        return self.connect is not None and self.every > 0

    @property
    def is_trusted_with_origins(self) -> bool:
        """Tell whether it may tell origins.

        We dial it then, and TLS proves that it is the peer.
        """
        is_proved = self.connect is not None and self.tls is Security.VERIFY
        return self.origin == "trust" and is_proved

    @property
    def mail_is_sealed(self) -> bool:
        """Tell whether mail for it waits here encrypted.

        It dials in then, and `seal` has its public keys.
        """
        return bool(self.seal) and self.connect is None

    @property
    def next_hop(self) -> Hop:
        """The way to a dialled peer, with our demands on TLS."""
        assert self.connect is not None
        return replace(self.connect, security=self.tls, pin=self.pin)
