"""The installation that is examined."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zope.interface import Interface

from mta.interfaces import IOwnHost, IResolver
from mta.mail import Hop
from mta.settings import Settings


@dataclass(frozen=True, slots=True)
class SessionSeen:
    """A session with another server, as far as it went.

    `keywords` are those of EHLO; `round_trip` is in seconds, of NOOP.
    """

    host: str
    keywords: frozenset[str]
    has_tls: bool
    round_trip: float


class IProbe(Interface):
    """Reaches other hosts.  Its coroutines raise `mta.queued.HopFailure`."""

    async def session(hop: Hop) -> SessionSeen:
        """Open a session with a hop, log in, and quit."""

    async def rcpt(hop: Hop, reverse_path: str, forward_path: str) -> int:
        """Return the code of the reply to RCPT; send no mail."""


@dataclass(frozen=True, slots=True)
class Examined:
    """The installation, as the checks see it.

    `hosts`: the file of names that the system knows.
    """

    settings: Settings
    resolver: IResolver
    own: IOwnHost
    probe: IProbe
    hosts: Path = Path("/etc/hosts")

    @property
    def is_dialling(self) -> bool:
        """Tell whether mail comes through a peer that we dial."""
        return any(peer.connect for peer in self.settings.peers.values())
