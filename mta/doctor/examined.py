"""The installation that is examined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Interface

from mta.interfaces import IOwnHost, IResolver
from mta.mail import Agent, Hop, Reply
from mta.session import TLSInfo
from mta.settings import Settings


@dataclass(frozen=True, slots=True)
class SessionSeen:
    """A session with another server, as far as it went.

    `keywords` are those of EHLO; `round_trip` is in seconds, of NOOP.  `replies` are those to the
    commands that were to be sent, in their order, as far as they came in time.  `tls` is what the
    server showed.
    """

    host: str
    keywords: frozenset[str]
    tls: TLSInfo | None
    round_trip: float
    replies: Sequence[Reply] = ()


@dataclass(frozen=True, slots=True)
class NameServerSeen:
    """A name server, and the ways in which it answers."""

    address: str
    by_udp: bool = True
    by_tcp: bool = True


class DocumentFault(Exception):
    """No document was read: one line.  `is_there`: its host answered, and wrongly."""

    def __init__(self, reason: str, *, is_there: bool) -> None:
        super().__init__(reason)
        self.is_there = is_there


class IProbe(Interface):
    """Reaches other hosts."""

    async def name_servers() -> Sequence[NameServerSeen]:
        """Ask each name server alone."""

    async def document(host: str, path: str) -> str:
        """Return what a host has at a path, by HTTPS.

        Its certificate has to be good.  Raises DocumentFault, ResolutionFailed or DomainNotFound.
        """

    async def session(hop: Hop, commands: Sequence[str] = (), needed: str = "") -> SessionSeen:
        """Open a session with a hop, log in, send commands, and quit.

        The commands are sent only where EHLO offers the `needed` keyword.  They must not send
        mail.  Raises `mta.queued.HopFailure`.
        """


@dataclass(frozen=True, slots=True)
class Examined:
    """The installation, as the checks see it.

    `in_thread` runs what blocks; `hosts` is the file of names that the system knows.
    """

    settings: Settings
    resolver: IResolver
    own: IOwnHost
    probe: IProbe
    in_thread: Callable[..., Deferred[Any]]
    hosts: Path = Path("/etc/hosts")

    @property
    def is_dialling(self) -> bool:
        """Tell whether mail comes through a peer that we dial."""
        return any(peer.connect for peer in self.settings.peers.values())

    @property
    def awaits_pairing(self) -> bool:
        """Tell whether this is an office without its relay yet.

        `mta init` leaves it so."""
        return not self.settings.peers and self.settings.default_route.agent is Agent.REJECT
